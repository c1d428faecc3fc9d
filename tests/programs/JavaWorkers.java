import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** Twenty threads of a JVM that compute what can be checked, allocate, and are collected; the count is in "beat". */
public final class JavaWorkers {
    private static final int THREADS = 20;
    private static final AtomicLong rounds = new AtomicLong();
    private static final Map<Integer, Long> last = new ConcurrentHashMap<>();
    private static volatile boolean stopping;
    private static volatile boolean failed;

    private static void say(String line) {
        System.err.println(line);
    }

    private static void fail(String why) {
        failed = true;
        say("FAIL: " + why);
    }

    private static byte[] chain(int seed) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] value = {(byte) seed};
        for (int i = 0; i < 200; i++) {
            value = digest.digest(value);
        }
        return value;
    }

    private static void work(int number) {
        try {
            byte[] expected = chain(number);
            List<byte[]> garbage = new ArrayList<>();
            for (long round = 0; !stopping; round++) {
                if (!MessageDigest.isEqual(chain(number), expected)) {
                    fail("thread " + number + " has another result");
                }
                garbage.add(new byte[50_000]);
                if (garbage.size() > 10) {
                    garbage.clear();
                }
                Long before = last.put(number, round);
                if (round > 0 && (before == null || before != round - 1)) {
                    fail("thread " + number + " came to round " + round + " after " + before);
                }
                rounds.incrementAndGet();
                Thread.sleep(5);
            }
        } catch (Throwable problem) {
            fail("thread " + number + ": " + problem);
        }
    }

    private static void beat() {
        ByteBuffer count = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(0, rounds.get());
        try (RandomAccessFile file = new RandomAccessFile("beat", "rw")) {
            file.write(count.array());
        } catch (IOException problem) {
            fail("beat: " + problem);
        }
    }

    public static void main(String[] arguments) throws Exception {
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < THREADS; i++) {
            int number = i;
            Thread thread = new Thread(() -> work(number));
            thread.start();
            threads.add(thread);
        }
        ScheduledExecutorService scheduler = Executors.newSingleThreadScheduledExecutor();
        scheduler.scheduleAtFixedRate(JavaWorkers::beat, 10, 20, TimeUnit.MILLISECONDS);
        while (last.size() < THREADS) {
            Thread.sleep(5);
        }
        say("ready");
        while (!new File("go").exists()) {
            Thread.sleep(10);
        }
        stopping = true;
        for (Thread thread : threads) {
            thread.join();
        }
        scheduler.shutdown();
        System.gc();
        if (!failed) {
            say("PASS");
        }
        System.exit(failed ? 1 : 0);
    }
}
