/**
 * Stands in for the entrypoint of docker.io/jenkins/jenkins together with its configuration-as-code and kubernetes
 * plugins: starts Hudson on loopback, brings the JCasC document in force, serves port 8080 and keeps agent pods.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterReload, BrokenDocument, findDocuments, readSettings, variables, type Settings } from "./casc";
import { CloudWatcher, templateLabels } from "./cloud";
import { prefixOf, serve, serveFailure } from "./front";
import { Hudson, HUDSON_PORT } from "./hudson";
import { loaded, pluginsThatFail, recorded } from "./plugins";
import { words } from "./pod";

const HOME = process.env.JENKINS_HOME ?? "/var/jenkins_home";
const WAR = "/usr/share/jenkins/hudson";
/** The image's plugins. */
const plugins = recorded(path.join(process.env.REF ?? "/usr/share/jenkins/ref", "plugins"));
/** Java 17 hides what this old code reaches for by reflection. */
const OPENS = [
  ...["lang", "util", "lang.reflect", "text", "util.concurrent", "util.concurrent.atomic", "io", "net", "security", "lang.ref", "util.regex", "util.zip", "util.jar"].map((p) => `java.base/java.${p}`),
  "java.base/sun.nio.ch", "java.base/sun.security.x509", "java.desktop/java.awt.font", "java.desktop/java.beans", "java.logging/java.util.logging",
].map((name) => `--add-opens=${name}=ALL-UNNAMED`);

function log(line: string): void {
  process.stdout.write(`${new Date().toISOString()} adapter: ${line}\n`);
}

function loadSettings(): Settings | undefined {
  const setting = process.env.CASC_JENKINS_CONFIG;
  if (!setting) return undefined;
  const documents = findDocuments(setting).map((name) => ({ name, text: fs.readFileSync(name, "utf8") }));
  const settings = readSettings(documents, variables(process.env), (line) => log(`WARNING: ${line}`), new Set(loaded(plugins).map(({ shortName }) => shortName)));
  if (settings.ignored.length > 0) log(`configuration: accepted, but without effect on Hudson: ${settings.ignored.join(", ")}`);
  return settings;
}

/** Hudson opens the agent port once, at start, from its configuration file. */
function setAgentPort(port: number): void {
  const file = path.join(HOME, "config.xml");
  const element = `<slaveAgentPort>${port}</slaveAgentPort>`;
  const before = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "<?xml version='1.0' encoding='UTF-8'?>\n<hudson>\n</hudson>\n";
  const after = /<slaveAgentPort>/.test(before) ? before.replace(/<slaveAgentPort>[^<]*<\/slaveAgentPort>/, element) : before.replace("</hudson>", `  ${element}\n</hudson>`);
  if (after === before) return;
  fs.writeFileSync(`${file}.new`, after);
  fs.renameSync(`${file}.new`, file);
}

/** As in the upstream image: files below /usr/share/jenkins/ref reach the home once, and never overwrite. */
function copyReference(): void {
  const reference = "/usr/share/jenkins/ref";
  if (fs.existsSync(reference)) fs.cpSync(reference, HOME, { recursive: true, force: false });
}

/** As the real one: the log has the exception, every page is 500, and the process stays until it is told to go. */
function failForGood({ problems }: BrokenDocument): void {
  log(`SEVERE: Failed ConfigurationAsCode.init\n${problems.join("\n")}\nSEVERE: Failed to initialize Jenkins\nio.jenkins.plugins.casc.ConfigurationAsCodeBootFailure: ${problems[0]}`);
  const server = serveFailure();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => (server.close(), process.exit(143)));
}

async function main(): Promise<void> {
  let settings: Settings | undefined;
  try {
    fs.accessSync(HOME, fs.constants.W_OK);
    pluginsThatFail(plugins).forEach((words) => log(`SEVERE: ${words}`));
    settings = loadSettings();
  } catch (e) {
    if (e instanceof BrokenDocument) return failForGood(e);
    log(`cannot write to ${HOME} as user ${os.userInfo().uid}: is the volume owned by, or its fsGroup, 1000? (${(e as Error).message})`);
    process.exit(1);
  }
  copyReference();
  const port = settings?.slaveAgentPort ?? Number(process.env.JENKINS_SLAVE_AGENT_PORT ?? 50000);
  setAgentPort(port);

  const token = randomBytes(32).toString("hex");
  const tokenFile = path.join(os.tmpdir(), "adapter-token");
  fs.rmSync(tokenFile, { force: true });
  fs.writeFileSync(tokenFile, token, { mode: 0o600, flag: "wx" });
  // The war lies unpacked in the image, and the ports are the adapter's: options about them have no meaning here.
  const options = words(process.env.JENKINS_OPTS ?? "").filter((word) => !/^--(http|https|ajp13|webroot|war)/.test(word));
  const java = spawn(
    path.join(process.env.JAVA_HOME ?? "/opt/java/openjdk", "bin/java"),
    [
      ...OPENS, "-Djava.awt.headless=true", "-Dhudson.DNSMultiCast.disabled=true", `-Dadapter.token.file=${tokenFile}`,
      ...words(process.env.JAVA_OPTS ?? ""), ...words(process.env.JENKINS_JAVA_OPTS ?? ""),
      "-cp", `/usr/share/jenkins/launcher:${WAR}/winstone.jar`, "HudsonLauncher",
      `--webroot=${WAR}`, "--httpListenAddress=127.0.0.1", `--httpPort=${HUDSON_PORT}`, "--ajp13Port=-1",
      // Winstone makes a certificate even for a TLS port that is off, in a way that this Java lacks, unless it is given one.
      "--httpsKeyStore=/usr/share/jenkins/launcher/unused.jks", "--httpsKeyStorePassword=changeit", ...options, ...process.argv.slice(2).filter((a) => a.startsWith("--")),
    ],
    { stdio: ["ignore", 1, 1], env: { ...process.env, HUDSON_HOME: HOME, JENKINS_HOME: HOME } },
  );

  const prefix = prefixOf(options);
  const hudson = new Hudson(token, prefix);
  const configure = async (next: Settings | undefined): Promise<void> => {
    if (next) await hudson.call("configure", { ...hudsonSettings(next) });
  };
  let ready = false;
  const watcher = new CloudWatcher(hudson, log, async () => {
    // Hudson was restarted inside its process and knows nothing of the document yet.
    if (settings) await configure(settings);
  });
  const reload = async (): Promise<void> => {
    const next = loadSettings();
    if (next && next.slaveAgentPort !== undefined && next.slaveAgentPort !== port) log(`configuration: slaveAgentPort ${next.slaveAgentPort} takes effect at the next start`);
    const then = next && afterReload(settings, next);
    await configure(then);
    settings = then;
    watcher.use(then?.clouds ?? []);
    log("configuration: reloaded");
  };
  const server = serve({ prefix, isReady: () => ready, reload, reloadToken: process.env.CASC_RELOAD_TOKEN, plugins: loaded(plugins), log });

  let stopping = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      if (stopping) return;
      stopping = true;
      log(`${signal}: stopping`);
      watcher.stop();
      server.close();
      java.kill("SIGTERM");
    });
  }
  java.on("exit", (code, signal) => {
    log(`Hudson ended (${signal ?? `code ${code}`})`);
    process.exit(stopping ? 143 : code || 1);
  });

  for (;;) {
    try {
      if (settings) await configure(settings);
      else await hudson.call("state");
      break;
    } catch (e) {
      const message = (e as Error).message;
      if (!/ECONN|still loading|status 503|socket hang up/.test(message)) {
        log(`start refused, the configuration cannot be brought in force: ${message}`);
        java.kill("SIGTERM");
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
  ready = true;
  log(settings ? `ready, ${settings.clouds.length} cloud(s), ${templateLabels(settings.clouds).length} pod template(s)` : "ready; CASC_JENKINS_CONFIG is not set, the home's own configuration holds");
  watcher.use(settings?.clouds ?? []);
  if (settings) await watcher.run();
}

/** What Bridge.java brings in force. */
function hudsonSettings(settings: Settings) {
  const { clouds, ignored, slaveAgentPort, ...rest } = settings;
  void ignored;
  void slaveAgentPort;
  return { numExecutors: 2, systemMessage: "", ...rest, templates: templateLabels(clouds) };
}

void main();
