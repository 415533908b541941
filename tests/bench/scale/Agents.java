import hudson.remoting.Engine;
import hudson.remoting.EngineListener;
import hudson.remoting.FileSystemJarCache;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.net.URI;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * Many inbound agents in one JVM, each an engine of remoting's own, as each pod's agent has one.
 * Reads "start JARS NAME URL SECRET TUNNEL" and "stop NAME", prints "connected NAME", "error NAME WHY" and "ended NAME". JARS is a folder of
 * remoting's jar cache below the one that is the argument.
 */
public class Agents {
    private static final Map<String, Engine> ENGINES = new ConcurrentHashMap<>();

    public static void main(String[] args) throws Exception {
        Logger.getLogger("").setLevel(Level.SEVERE);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            String[] words = line.split(" ");
            if (words[0].equals("start")) start(new File(args[0], words[1]), words[2], words[3], words[4], words[5]);
            Engine engine = words[0].equals("stop") ? ENGINES.get(words[1]) : null;
            if (engine != null) engine.interrupt();
        }
        System.exit(0);
    }

    private static void start(File cache, String name, String url, String secret, String tunnel) throws Exception {
        EngineListener listener = new EngineListener() {
            @Override
            public void status(String message) {
                if (message.equals("Connected")) say("connected " + name);
            }

            @Override
            public void status(String message, Throwable cause) {
                status(message);
            }

            @Override
            public void error(Throwable cause) {
                say("error " + name + " " + cause);
            }

            @Override
            public void completed() {
                ENGINES.remove(name);
                say("ended " + name);
            }
        };
        Engine engine = new Engine(listener, List.of(URI.create(url).toURL()), secret, name);
        engine.setTunnel(tunnel);
        engine.setJarCache(new FileSystemJarCache(cache, true));
        ENGINES.put(name, engine);
        engine.startEngine();
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
