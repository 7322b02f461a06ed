// Prints the vectors of murmur2.txt: keys of 0 to 40 bytes of a seeded generator, hashed by Kafka's own client.
//   java -cp 'kafka-clients-4.3.1.jar:slf4j-api.jar' Murmur2Vectors.java > murmur2.txt
import org.apache.kafka.common.utils.Utils;

public class Murmur2Vectors {
    public static void main(String[] arguments) {
        System.out.println("# Made by Murmur2Vectors.java with org.apache.kafka:kafka-clients:4.3.1.");
        System.out.println("# One line of 100 hashes (hex, Utils.murmur2) for 100 keys; key n of all has n mod 41");
        System.out.println("# bytes, each the top byte of the next state of x = x * 6364136223846793005 + 1, x = 1 at first.");
        long state = 1;
        for (int line = 0; line < 100; line++) {
            StringBuilder out = new StringBuilder();
            for (int i = 0; i < 100; i++) {
                byte[] key = new byte[(line * 100 + i) % 41];
                for (int b = 0; b < key.length; b++) {
                    state = state * 6364136223846793005L + 1;
                    key[b] = (byte) (state >>> 56);
                }
                int hash = Utils.murmur2(key);
                // The partition of a keyed record, as BuiltInPartitioner has it, must follow from the hash.
                if (Utils.toPositive(hash) != (hash & 0x7fffffff)) throw new AssertionError();
                out.append(String.format("%08x", hash));
            }
            System.out.println(out);
        }
    }
}
