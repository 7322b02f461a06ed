import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import javax.net.SocketFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Eclipse Paho's Java clients: VERSION TRANSPORT PORT [CA]. Subscribes, publishes to itself, and ends
 * with 0 when all has come back.
 */
class Paho {
  static final Map<String, String> WANTED =
      new ConcurrentHashMap<>(
          Map.of("0", "zero", "1", "one", "2", "two", "big", "x".repeat(100_000)));
  static final CountDownLatch LEFT = new CountDownLatch(WANTED.size());
  static String base;

  public static void main(String[] arguments) throws Exception {
    String version = arguments[0];
    String transport = arguments[1];
    base = "foreign/paho-java/" + version + "/" + transport + "/";
    String scheme = transport.equals("tls") ? "ssl" : transport;
    String uri = scheme + "://localhost:" + arguments[2];
    SocketFactory sockets = arguments.length > 3 ? trusting(arguments[3]) : null;
    if (version.equals("5")) {
      five(uri, sockets);
    } else {
      three(uri, sockets);
    }
    System.out.println("all came back");
    System.exit(0);
  }

  static void three(String uri, SocketFactory sockets) throws Exception {
    var client =
        new org.eclipse.paho.client.mqttv3.MqttClient(
            uri, "paho3", new org.eclipse.paho.client.mqttv3.persist.MemoryPersistence());
    var options = new org.eclipse.paho.client.mqttv3.MqttConnectOptions();
    options.setMqttVersion(4);
    if (sockets != null) {
      options.setSocketFactory(sockets);
    }
    client.connect(options);
    client.subscribe(base + "#", 2, (topic, message) -> came(topic, message.getPayload()));
    for (var one : Map.copyOf(WANTED).entrySet()) {
      client.publish(base + one.getKey(), one.getValue().getBytes(), qos(one.getKey()), false);
    }
    end();
    client.disconnect();
  }

  static void five(String uri, SocketFactory sockets) throws Exception {
    var client =
        new org.eclipse.paho.mqttv5.client.MqttClient(
            uri, "paho5", new org.eclipse.paho.mqttv5.client.persist.MemoryPersistence());
    var options = new org.eclipse.paho.mqttv5.client.MqttConnectionOptions();
    if (sockets != null) {
      options.setSocketFactory(sockets);
    }
    client.setCallback(new Five());
    client.connect(options);
    client.subscribe(base + "#", 2);
    for (var one : Map.copyOf(WANTED).entrySet()) {
      client.publish(base + one.getKey(), one.getValue().getBytes(), qos(one.getKey()), false);
    }
    end();
    client.disconnect();
  }

  static class Five implements org.eclipse.paho.mqttv5.client.MqttCallback {
    public void messageArrived(String topic, org.eclipse.paho.mqttv5.common.MqttMessage message) {
      came(topic, message.getPayload());
    }

    public void disconnected(org.eclipse.paho.mqttv5.client.MqttDisconnectResponse response) {}

    public void mqttErrorOccurred(org.eclipse.paho.mqttv5.common.MqttException exception) {}

    public void deliveryComplete(org.eclipse.paho.mqttv5.client.IMqttToken token) {}

    public void connectComplete(boolean again, String uri) {}

    public void authPacketArrived(
        int reason, org.eclipse.paho.mqttv5.common.packet.MqttProperties properties) {}
  }

  static int qos(String name) {
    return name.equals("big") ? 1 : Integer.parseInt(name);
  }

  static void came(String topic, byte[] payload) {
    if (WANTED.remove(topic.substring(base.length()), new String(payload))) {
      LEFT.countDown();
    }
  }

  static void end() throws Exception {
    if (!LEFT.await(30, TimeUnit.SECONDS)) {
      System.err.println("did not come: " + WANTED.keySet());
      System.exit(1);
    }
  }

  static SocketFactory trusting(String path) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null);
    try (var file = new FileInputStream(path)) {
      store.setCertificateEntry(
          "ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
    }
    var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    return context.getSocketFactory();
  }
}
