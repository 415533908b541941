/** Stands in for the war's own Main: tells the old XStream a JVM vendor it knows, then serves the unpacked war. */
public final class HudsonLauncher {
    public static void main(String[] args) throws Exception {
        // A -D option does not change this property, only code does.
        System.setProperty("java.vm.vendor", "Sun Microsystems Inc.");
        winstone.Launcher.main(args);
    }
}
