// mqtt.js: VERSION TRANSPORT PORT [CA]. Subscribes, publishes to itself, and ends with 0 when all
// has come back.
const fs = require("fs");
const mqtt = require("mqtt");

const [version, transport, port, ca] = process.argv.slice(2);
const scheme = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" }[transport];
const base = `foreign/mqttjs/${version}/${transport}`;
const wanted = new Map([
  ["0", "zero"],
  ["1", "one"],
  ["2", "two"],
  ["big", "x".repeat(100000)],
]);
const client = mqtt.connect(`${scheme}://localhost:${port}`, {
  protocolVersion: Number(version),
  ca: ca ? fs.readFileSync(ca) : undefined,
  reconnectPeriod: 0,
});
const fail = (why) => {
  console.error(why);
  process.exit(1);
};
setTimeout(() => fail("too slow"), 30000).unref();
client.on("error", fail);
client.on("message", (topic, payload) => {
  const name = topic.slice(base.length + 1);
  if (payload.toString() !== wanted.get(name)) fail(`${topic}: not as it was sent`);
  wanted.delete(name);
  if (wanted.size === 0) client.end(false, () => console.log("all came back"));
});
client.on("connect", async () => {
  await client.subscribeAsync(`${base}/#`, { qos: 2 });
  for (const [name, text] of [...wanted]) {
    await client.publishAsync(`${base}/${name}`, text, { qos: name === "big" ? 1 : Number(name) });
  }
});
