import java.io.RandomAccessFile;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;

/** Faults that a JVM causes on purpose and recovers from. */
public class Trips {
    static class Box {
        int value = 1;
    }

    static int read(Box box) {
        return box.value;
    }

    /** Uses null references, which compiled code detects by their faults (SIGSEGV). Returns the number of exceptions caught. */
    public static int nullPointers(int times) {
        Box box = new Box();
        int caught = 0;
        for (int i = 0; i < 20_000; i++) {
            read(box);
        }
        for (int i = 0; i < times; i++) {
            try {
                read(null);
            } catch (NullPointerException expected) {
                caught++;
            }
        }
        return caught;
    }

    /** Returns 1 if an access to a truncated mapped file (SIGBUS) becomes an error soon afterwards, and does not kill the process. */
    public static int cutFile(String path) throws Exception {
        try {
            touchCutFile(path);
            return 0;
        } catch (InternalError expected) {
            return 1;
        }
    }

    static void touchCutFile(String path) throws Exception {
        try (RandomAccessFile file = new RandomAccessFile(path, "rw")) {
            file.setLength(1 << 16);
            MappedByteBuffer map = file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 1 << 16);
            file.setLength(0);
            map.get(1 << 15);
            Thread.yield();
        }
    }
}
