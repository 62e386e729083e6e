import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** A Java program whose heap grows by 32 MiB, and 8 MiB of direct buffers beside it. */
class Grow {
    static final List<Object> kept = new ArrayList<>();

    static void keepArrays() {
        for (int i = 0; i < 512; i++) {
            byte[] array = new byte[64 << 10];
            java.util.Arrays.fill(array, (byte) i);
            kept.add(array);
        }
    }

    static void keepBuffers() {
        for (int i = 0; i < 128; i++)
            kept.add(ByteBuffer.allocateDirect(64 << 10));
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        System.out.println("ready " + ProcessHandle.current().pid());
        input.readLine();
        keepArrays();
        keepBuffers();
        System.out.println("{\"pid\":0,\"sites\":[]}");
        input.readLine();
    }
}
