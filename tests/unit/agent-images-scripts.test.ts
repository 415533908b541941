import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { imageEnvironment, otherLogins, prepareImages, type AgentImagesArgs } from "../../components/agent-images";
import { digestOf, RegistryStandIn } from "./agent-images-registry";
import { waitFor } from "../../sandbox/shell";

// Each test starts some dozens of programs, which a busy machine does slowly.
jest.setTimeout(30_000);

const scripts = path.resolve(__dirname, "../../scripts/images");
const registry = new RegistryStandIn();
let folder: string;

beforeAll(() => registry.start());
afterAll(() => registry.stop());
beforeEach(() => {
  registry.clear();
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "build-image-test-"));
  for (const sub of ["bin", "tmp", "context"]) fs.mkdirSync(path.join(folder, sub));
  fs.writeFileSync(path.join(folder, "context/Dockerfile"), "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n");
  // Says what it was called with, then does its work.
  program("curl", 'printf "curl %s\\n" "$*" >>"$FOLDER/calls"; exec /usr/bin/curl "$@"');
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

/** Puts a program on the PATH of the scripts under test. */
function program(name: string, body: string): void {
  fs.writeFileSync(path.join(folder, "bin", name), `#!/bin/bash\n${body}\n`, { mode: 0o755 });
}

/** Stand-in for buildah: notes its call and the credentials file, "builds" nothing and pushes an image whose content is the text given. */
function buildah(content: string, beforePush = ""): void {
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: { digest: digestOf(content) }, layers: [] });
  registry.blobs.set(digestOf(content), Buffer.from(content));
  program(
    "buildah",
    `printf 'buildah %s\\n' "$*" >>"$FOLDER/calls"
    while [ $# -gt 1 ]; do
      case $1 in
        --iidfile) echo sha256:image >"$2" ;;
        --authfile) { stat -c %a "$2"; cat "$2"; } >"$FOLDER/auth" ;;
        --digestfile) digestfile=$2 ;;
      esac
      shift
    done
    case $1 in
      docker://*)
        ${beforePush}
        target=\${1#docker://}; path=\${target#*/}
        /usr/bin/curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary '${manifest}' "http://\${target%%/*}/v2/\${path%:*}/manifests/\${path##*:}" || exit 1
        printf '%s' '${digestOf(manifest)}' >"$digestfile" ;;
      *) ls -l "$1" >>"$FOLDER/built" ;;
    esac`,
  );
}

interface Ended {
  code: number | null;
  out: string;
  err: string;
}

/** Runs a script with only the stand-ins and the system's own programs on its PATH. */
function run(script: string, args: string[], environment: Record<string, string> = {}, onErr?: (err: string, kill: () => void) => void): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { PATH: `${path.join(folder, "bin")}:/usr/bin:/bin`, HOME: folder, TMPDIR: path.join(folder, "tmp"), FOLDER: folder, ...environment };
    const child = spawn(path.join(scripts, script), args, { env, cwd: folder });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk) => (out += chunk));
    child.stderr.on("data", (chunk) => {
      err += chunk;
      onErr?.(err, () => child.kill("SIGTERM"));
    });
    child.on("close", (code) => resolve({ code, out, err }));
  });
}

const build = (args: string[] = [], environment: Record<string, string> = {}): Promise<Ended> =>
  run("build-image.sh", ["--repository", `${registry.host}/team/maven-dind`, "--context", "context", "--arg", "BASE_IMAGE=example.org/base:1", "--tag", "maven-dind-0123456789ab", "--insecure", ...args], environment);
const calls = (): string => (fs.existsSync(path.join(folder, "calls")) ? fs.readFileSync(path.join(folder, "calls"), "utf8") : "");
const leftovers = (): string[] => fs.readdirSync(path.join(folder, "tmp"));
const pushed = (): string[] => registry.requests.filter((r) => r.startsWith("PUT "));

describe("build-image.sh", () => {
  test("prints the reference with the registry's digest and nothing else, and leaves nothing behind", async () => {
    buildah("one");
    const ended = await build(["--stack", "dev"]);
    expect(ended.err).toContain("maven-dind: built and pushed");
    expect(ended).toMatchObject({ code: 0, out: `${registry.host}/team/maven-dind@${registry.tags.get("team/maven-dind")?.get("maven-dind-0123456789ab")}\n` });
    expect(registry.tagsOf("team/maven-dind")).toEqual([expect.stringMatching(/^dev-\d{8}t\d{6}z$/), "maven-dind-0123456789ab"]);
    expect(leftovers()).toEqual([]);
  });

  test("does not build what the registry has, unless forced", async () => {
    buildah("one");
    const digest = registry.seed("team/maven-dind", "earlier", "maven-dind-0123456789ab");
    const ended = await build(["--stack", "dev"]);
    expect(ended).toMatchObject({ code: 0, out: `${registry.host}/team/maven-dind@${digest}\n` });
    expect(calls()).not.toContain("buildah");
    expect([...(registry.tags.get("team/maven-dind")?.values() ?? [])]).toEqual([digest, digest]);
    expect((await build(["--force"])).out).not.toContain(digest);
    expect(calls()).toContain("buildah");
  });

  test("gives the context the modes that git knows", async () => {
    buildah("one");
    fs.writeFileSync(path.join(folder, "context/private"), "", { mode: 0o600 });
    fs.writeFileSync(path.join(folder, "context/program"), "", { mode: 0o700 });
    expect((await build()).code).toBe(0);
    const listed = fs.readFileSync(path.join(folder, "built"), "utf8");
    expect(listed).toMatch(/^-rw-r--r--.* private$/m);
    expect(listed).toMatch(/^-rwxr-xr-x.* program$/m);
  });

  test("gives scripts with the line ends of Windows those that Linux starts, and nothing else", async () => {
    buildah("an image");
    const files: Record<string, string> = { "run.sh": "#!/bin/sh\r\necho hi\r\n", "notes.txt": "a\r\n#!b\r\n", "unix.sh": "#!/bin/sh\necho '\r'\n", "binary": "#!/bin/sh\r\n\0\r\n" };
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, "context", name), text, { mode: 0o755 });
    fs.writeFileSync(path.join(folder, "bin/buildah"), fs.readFileSync(path.join(folder, "bin/buildah"), "utf8").replace("*) ls -l", '*) cp -a "$1" "$FOLDER/copy"; ls -l'), { mode: 0o755 });
    expect((await build()).code).toBe(0);
    const read = (name: string) => fs.readFileSync(path.join(folder, "copy", name), "utf8");
    expect(Object.fromEntries(Object.keys(files).map((name) => [name, read(name)]))).toEqual({ ...files, "run.sh": "#!/bin/sh\necho hi\n" });
    expect(fs.statSync(path.join(folder, "copy/run.sh")).mode & 0o777).toBe(0o755);
  });

  test("log-ins for other hosts stand in the builder's credentials file beside the registry's, and nowhere else", async () => {
    buildah("one");
    const REGISTRY_LOGINS = otherLogins([{ registry: "docker.io", username: "robot", password: "hub:pw" }, { registry: "m.test:5000", username: "me", password: "other-pw" }]).REGISTRY_LOGINS!;
    const auths = () => (JSON.parse(fs.readFileSync(path.join(folder, "auth"), "utf8").split("\n")[1]) as { auths: Record<string, { auth: string }> }).auths;
    const named = () => Object.fromEntries(Object.entries(auths()).map(([host, { auth }]) => [host, Buffer.from(auth, "base64").toString()]));
    const ended = await build([], { REGISTRY_LOGINS });
    expect([ended.code, named()]).toEqual([0, { "https://index.docker.io/v1/": "robot:hub:pw", "m.test:5000": "me:other-pw" }]);
    await build(["--force"], { REGISTRY_LOGINS, REGISTRY_USERNAME: "own", REGISTRY_PASSWORD: "own-pw" });
    expect(named()).toEqual({ [registry.host]: "own:own-pw", "https://index.docker.io/v1/": "robot:hub:pw", "m.test:5000": "me:other-pw" });
    for (const text of [calls(), ended.out, ended.err]) for (const secret of ["hub:pw", "other-pw", Buffer.from("robot:hub:pw").toString("base64")]) expect(text).not.toContain(secret);
    expect(leftovers()).toEqual([]);
  });

  test("mirrors reach buildah in its configuration of registries, behind this machine's own", async () => {
    buildah("one");
    fs.writeFileSync(path.join(folder, "bin/buildah"), fs.readFileSync(path.join(folder, "bin/buildah"), "utf8").replace("while [", 'cat "${CONTAINERS_REGISTRIES_CONF:-/dev/null}" >"$FOLDER/registries"\n    while ['), { mode: 0o755 });
    const registries = () => fs.readFileSync(path.join(folder, "registries"), "utf8");
    await build(["--force"], { IMAGE_MIRRORS: `docker.io=${registry.host}/hub\nquay.io=m.test` });
    expect(registries()).toContain(`[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "${registry.host}/hub"\ninsecure = true\n`);
    expect(registries()).toContain('[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "m.test"\ninsecure = false\n');
    await build(["--force"]);
    expect(registries()).not.toContain(`location = "${registry.host}/hub"`);
    const of = (mirrors?: Record<string, string>) => imageEnvironment("a", { hash: "0".repeat(64), files: {} }, { registry: { host: "r", prefix: "", insecure: false }, builder: "buildah", images: { a: { context: "." } }, ...(mirrors && { mirrors: { registries: mirrors, insecure: [] } }) });
    expect(of({ "docker.io": "m.test" }).IMAGE_MIRRORS).toBe("docker.io=m.test");
    for (const none of [of(), of({})]) expect(none).not.toHaveProperty("IMAGE_MIRRORS");
  });

  test.each([false, true])("keeps the password from arguments, output and disk afterwards (token registry: %s)", async (tokens) => {
    buildah("one");
    const login = { REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: 'p"a\\s s$wörd' };
    registry.options = { login: { username: "me", password: login.REGISTRY_PASSWORD }, tokens };
    // The stand-in for buildah cannot log in; the real one is given the file that is looked at here.
    const ended = await build([], { ...login, IGNORED: "" });
    expect(ended.err).toContain("push failed");
    registry.options = {};
    const again = await build([], login);
    expect(again.code).toBe(0);
    const [mode, json] = fs.readFileSync(path.join(folder, "auth"), "utf8").split("\n");
    expect(mode).toBe("600");
    expect(JSON.parse(json)).toEqual({ auths: { [registry.host]: { auth: Buffer.from(`me:${login.REGISTRY_PASSWORD}`).toString("base64") } } });
    for (const text of [calls(), ended.out, ended.err, again.out, again.err]) {
      expect(text).not.toContain(login.REGISTRY_PASSWORD);
      expect(text).not.toContain(Buffer.from(`me:${login.REGISTRY_PASSWORD}`).toString("base64"));
    }
    expect(leftovers()).toEqual([]);
  });

  test.each([
    ["no space left on device", /disk is full/],
    ["http: server gave HTTP response to HTTPS client", /registry\.insecure/],
    ["tls: failed to verify certificate: x509: certificate signed by unknown authority", /trust\.caBundleFile.*--ca/],
    ["unauthorized: authentication required", /registry\.username/],
    ["reading manifest 9 in docker.io/library/maven: manifest unknown", /does not exist.*BASE_IMAGE=example\.org\/base:1/],
    ["dial tcp 10.0.0.1:5000: connect: connection refused", /cannot be reached/],
    ["something new", /--verbose/],
    // The last lines of a command of the Dockerfile are no word of a registry's.
    ['building at STEP "RUN cp a b": exit status 1\nPermission denied', /a command of the Dockerfile failed/],
    ['process "/bin/sh -c nosuch" did not complete successfully: exit code: 127: sh: nosuch: not found', /a command of the Dockerfile failed/],
    ['building at STEP "COPY nothing /": checking on sources under "/x": copier: stat: "/nothing": no such file or directory', /does not exist/],
  ])("a build that fails with %j ends in the log's last lines, the image's name and what to do", async (line, advice) => {
    program("buildah", `for i in $(seq 100); do echo "step $i"; done; echo 'Error: ${line}' >&2; exit 7`);
    const ended = await build();
    expect(ended).toMatchObject({ code: 1, out: "" });
    expect(ended.err).toContain(`maven-dind: | Error: ${line.split("\n")[0]}`);
    expect(ended.err).toContain("maven-dind: | step 100");
    expect(ended.err).not.toMatch(/step 1$/m);
    expect(ended.err).toMatch(/maven-dind: build failed \(exit 7\); /);
    expect(ended.err).toMatch(advice);
    expect(registry.tagsOf("team/maven-dind")).toEqual([]);
  });

  test("a push that is stopped leaves no tag and no temporary file", async () => {
    buildah("one", "echo pushing >&2; sleep 30");
    const ended = await run("build-image.sh", ["--repository", `${registry.host}/team/maven-dind`, "--context", "context", "--tag", "t", "--insecure", "--verbose"], {}, (err, kill) => {
      if (err.includes("pushing")) kill();
    });
    expect(ended).toMatchObject({ code: 143, out: "" });
    expect(registry.tagsOf("team/maven-dind")).toEqual([]);
    expect(pushed()).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  test("fails if the registry has another image under the tag than was pushed", async () => {
    buildah("one");
    program("buildah.real", "");
    fs.appendFileSync(path.join(folder, "bin/buildah"), '\n[ -z "${digestfile:-}" ] || printf sha256:%064d 0 >"$digestfile"\n');
    const ended = await build();
    expect(ended).toMatchObject({ code: 1, out: "" });
    expect(ended.err).toContain("somebody else pushes this tag");
  });

  test("takes a context that is a link, one with a leading hyphen, and modes, links and names of any kind", async () => {
    buildah("one");
    fs.mkdirSync(path.join(folder, "-c/d"), { recursive: true });
    fs.chmodSync(path.join(folder, "-c/d"), 0o3777);
    fs.writeFileSync(path.join(folder, "-c/Dockerfile"), "FROM scratch\n");
    fs.symlinkSync("/etc/passwd", path.join(folder, "-c/out"));
    for (const name of ["-rf", "a b", "new\nline", "ü", "$(touch pwned)", '"q"', "back\\slash"]) fs.writeFileSync(path.join(folder, "-c", name), name);
    fs.writeFileSync(path.join(folder, "-c/set-uid"), "");
    fs.chmodSync(path.join(folder, "-c/set-uid"), 0o4755);
    fs.symlinkSync("-c", path.join(folder, "linked"));
    for (const context of ["-c", "linked"]) {
      fs.rmSync(path.join(folder, "built"), { force: true });
      expect((await build(["--context", context, "--force"])).err).toContain("built and pushed");
      const listed = fs.readFileSync(path.join(folder, "built"), "utf8");
      expect(listed).toMatch(/^drwxr-xr-x .* d$/m);
      expect(listed).toMatch(/^-rwxr-xr-x .* set-uid$/m);
      expect(listed).toMatch(/^l.* out -> \/etc\/passwd$/m);
      expect(listed.trim().split("\n")).toHaveLength(13);
    }
    expect(fs.existsSync(path.join(folder, "pwned"))).toBe(false);
  });

  test.each([
    ["node_modules\n.env\n# a comment\n*.log\nsub/skipped/\n", ["Dockerfile", ".dockerignore", "kept", "sub", "sub/a.log"]],
    ["*\n", ["Dockerfile", ".dockerignore"]],
    ["node_modules\r\n/.env\r\n*.log\r\nsub\r\n", ["Dockerfile", ".dockerignore", "kept"]],
    // What cannot be told to tar is left to the builder.
    ["*\n!kept\n", ["Dockerfile", ".dockerignore", ".env", "kept", "node_modules", "node_modules/m", "sub", "sub/a.log", "sub/skipped", "sub/skipped/x", "top.log"]],
    ["**/*.log\n../x\n./kept\n[k]ept\n", ["Dockerfile", ".dockerignore", ".env", "kept", "node_modules", "node_modules/m", "sub", "sub/a.log", "sub/skipped", "sub/skipped/x", "top.log"]],
  ])("copies nothing that .dockerignore %j plainly leaves out", async (ignore, copied) => {
    buildah("one");
    for (const file of ["node_modules/m", ".env", "kept", "top.log", "sub/a.log", "sub/skipped/x"]) {
      fs.mkdirSync(path.dirname(path.join(folder, "context", file)), { recursive: true });
      fs.writeFileSync(path.join(folder, "context", file), "");
    }
    fs.writeFileSync(path.join(folder, "context/.dockerignore"), ignore);
    program("ls", `cd "$2" && find . -mindepth 1 | sed 's|^./||'`);
    expect((await build()).code).toBe(0);
    expect(fs.readFileSync(path.join(folder, "built"), "utf8").trim().split("\n").sort()).toEqual([...copied].sort());
  });

  test("takes away what a run that was killed outright left a day ago, and nothing younger or of others", async () => {
    buildah("one");
    for (const name of ["build-image.aaaaaa", "build-image.bbbbbb", "other"]) fs.mkdirSync(path.join(folder, "tmp", name));
    fs.writeFileSync(path.join(folder, "tmp/build-image.aaaaaa/login.conf"), "secret");
    for (const name of ["build-image.aaaaaa", "other"]) fs.utimesSync(path.join(folder, "tmp", name), 1, 1);
    expect((await build()).code).toBe(0);
    expect(leftovers().sort()).toEqual(["build-image.bbbbbb", "other"]);
  });

  test("names itself and the fix where no temporary folder can be made", async () => {
    expect(await build([], { TMPDIR: "/nowhere" })).toMatchObject({ code: 1, out: "", err: expect.stringMatching(/^maven-dind: no temporary folder can be made: .*TMPDIR/m) });
  });

  test("works without a home folder, and takes the password from the programs it starts", async () => {
    buildah("one");
    fs.appendFileSync(path.join(folder, "bin/buildah"), '\nenv >>"$FOLDER/environment"\n');
    const ended = await build([], { HOME: "", REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "s3cret" });
    expect(ended.code).toBe(0);
    expect(fs.readFileSync(path.join(folder, "environment"), "utf8")).not.toContain("s3cret");
  });

  test("says what to install where the builder is missing", async () => {
    // A PATH with the shell's own tools only.
    for (const tool of ["bash", "mktemp", "rm", "cat", "grep", "sed", "tr", "cut", "date", "chmod", "cp", "mkdir", "dirname", "tail", "awk", "base64", "head", "find", "id", "tar"]) {
      fs.symlinkSync(`/usr/bin/${tool}`, path.join(folder, "bin", tool));
    }
    const only = { PATH: path.join(folder, "bin") };
    for (const [builder, words] of [["buildah", "no buildah on PATH"], ["buildx", "no buildx on PATH"], ["in-cluster", "no kubectl on PATH"]]) {
      const ended = await build(["--builder", builder, "--namespace", "n", "--buildkit-image", "i"], only);
      expect(ended).toMatchObject({ code: 1, out: "" });
      expect(ended.err).toContain(`maven-dind: there is ${words}; install`);
    }
    fs.rmSync(path.join(folder, "bin/curl"));
    expect(await build([], only)).toMatchObject({ code: 1, out: "", err: expect.stringMatching(/^maven-dind: there is no curl on PATH; install/m) });
  });

  test.each([
    [["--context", "nowhere"], 'there is no folder "nowhere"'],
    [["--dockerfile", "../Dockerfile"], "outside the context"],
    [["--dockerfile", "/etc/passwd"], "outside the context"],
    [["--dockerfile", "Containerfile"], "no file context/Containerfile"],
    [["--repository", "maven-dind"], "is no repository"],
    [["--repository", "host/Maven"], "is no repository name"],
    [["--repository", "fd00::1/maven"], "is no repository name"],
    [["--tag", "a b"], "is no tag"],
    [["--name", "a|b"], '"a|b" is no image name'],
    [["--name", "../x"], "is no image name"],
    [["--builder", "kaniko"], 'builder "kaniko" is unknown'],
    [["--builder", "in-cluster"], "--namespace"],
    [["--arg", "NOVALUE"], "is not KEY=VALUE"],
    [["--arg"], "--arg needs a value"],
    [["--frobnicate"], "unknown option --frobnicate"],
  ])("bad input %j: exit 2, the fault named, nothing done", async (args, words) => {
    buildah("one");
    const ended = await build(args);
    expect(ended).toMatchObject({ code: 2, out: "" });
    expect(ended.err).toContain(words);
    expect(calls()).toBe("");
    expect(leftovers()).toEqual([]);
  });

  describe("a registry in the cluster", () => {
    const service = "image-registry.image-registry.svc:5001";
    const ask = (args: string[], environment = {}) => run("build-image.sh", ["--repository", `${service}/team/maven-dind`, "--context", "context", "--tag", "maven-dind-0123456789ab", "--builder", "in-cluster", "--namespace", "builds", "--buildkit-image", "b:1", "--pulled-from", "localhost:61500", ...args], environment);
    /** Stand-in for kubectl port-forward: says it forwards to a port, and lives until it is stopped. */
    const kubectl = (port: number | string) => program("kubectl", `printf 'kubectl %s\\n' "$*" >>"$FOLDER/calls"; case "$*" in *secret*) printf push.to.ken; exit ;; esac; echo "Forwarding from 127.0.0.1:${port} -> 5001"; echo $$ >"$FOLDER/forward"; exec sleep 60`);
    /** It was told to end before the script ended: the kernel may take a moment. */
    const gone = () => waitFor("the port-forward to be gone", 30, async () => !fs.existsSync(`/proc/${fs.readFileSync(path.join(folder, "forward"), "utf8").trim()}`));

    test("is asked through the API server, and the reference has the name by which nodes pull", async () => {
      const digest = registry.seed("team/maven-dind", "one", "maven-dind-0123456789ab");
      kubectl(registry.host.split(":")[1]);
      expect(await ask(["--kube-context", "prod"])).toMatchObject({ code: 0, out: `localhost:61500/team/maven-dind@${digest}\n` });
      expect(calls()).toContain("kubectl --request-timeout 30s --context prod --namespace image-registry get secret image-registry-push --output");
      expect(calls()).not.toContain("push.to.ken");
      expect(calls()).toContain("kubectl --request-timeout 30s --context prod --namespace image-registry --request-timeout 0 port-forward --address 127.0.0.1 --pod-running-timeout 10s service/image-registry :5001");
      await gone();
      // Whatever proxy this machine has for others.
      expect(await ask(["--inspect"], { http_proxy: "http://127.0.0.1:9" })).toMatchObject({ code: 0, out: "present\n" });
      registry.clear();
      expect(await ask(["--inspect"])).toMatchObject({ code: 0, out: "missing\n" });
      await gone();
    });

    test("that cannot be reached is nothing to go by", async () => {
      program("kubectl", "echo no such namespace >&2; exit 1");
      expect(await ask(["--inspect"])).toMatchObject({ code: 0, out: "unknown\n" });
    });

    describe("and a local builder", () => {
      const type = "application/vnd.oci.image.manifest.v1+json";
      const descriptor = (text: string, mediaType = type) => ({ mediaType, digest: digestOf(text), size: text.length });
      const manifest = JSON.stringify({ schemaVersion: 2, mediaType: type, config: descriptor("config", "application/json"), layers: [descriptor("a layer", "application/octet-stream")], annotations: { note: '{"digest":"sha256:x", "manifests":[]}' } });
      const index = JSON.stringify({ schemaVersion: 2, manifests: [{ ...descriptor(manifest), platform: { architecture: "arm64", os: "linux" } }] });
      /** Shell lines that write the image as an OCI layout into the folder $layout. */
      const layout = (top: string) => `mkdir -p "$layout/blobs/sha256"; ${["config", "a layer", manifest, index].map((text) => `printf %s '${text}' >"$layout/blobs/sha256/${digestOf(text).slice(7)}"`).join("; ")}; printf %s '${JSON.stringify({ schemaVersion: 2, manifests: [descriptor(top)] })}' >"$layout/index.json"`;
      const withBuildah = (top: string) =>
        program("buildah", `printf 'buildah %s\\n' "$*" >>"$FOLDER/calls"
          while [ $# -gt 1 ]; do case $1 in --digestfile) printf %s '${digestOf(top)}' >"$2" ;; esac; shift; done
          case $1 in oci:*) layout=\${1#oci:}; layout=\${layout%:*}; ${layout(top)} ;; esac`);
      const withBuildx = (top: string) =>
        program("buildx", `printf 'buildx %s\\n' "$*" >>"$FOLDER/calls"
          while [ $# -gt 0 ]; do case $1 in
            --metadata-file) printf '{"containerimage.digest": "%s"}' '${digestOf(top)}' >"$2" ;;
            type=oci,*) layout=\${1#*dest=}; layout=\${layout%%,*}; ${layout(top)} ;;
          esac; shift; done`);

      beforeEach(() => {
        kubectl(registry.host.split(":")[1]);
        program("docker", "exit 1");
      });
      const outcome = async (builder: string, args: string[] = [], environment = {}) => ask(["--builder", builder, "--stack", "dev", ...args], environment);

      test.each([["buildah", manifest], ["buildah", index], ["buildx", manifest], ["buildx", index]])("%s: what it hands back is uploaded through the API server, under the name by which nodes pull", async (builder, top) => {
        (builder === "buildx" ? withBuildx : withBuildah)(top);
        const ended = await outcome(builder, top === index ? ["--platforms", "linux/arm64,linux/amd64"] : []);
        expect(ended.err).toContain("built and pushed");
        expect(ended).toMatchObject({ code: 0, out: `localhost:61500/team/maven-dind@${digestOf(top)}\n` });
        expect(registry.tagsOf("team/maven-dind")).toEqual([expect.stringMatching(/^dev-/), "maven-dind-0123456789ab"]);
        expect([...registry.manifests.keys()].sort()).toEqual((top === index ? [index, manifest] : [manifest]).map(digestOf).sort());
        // The builder hears neither of the forwarded port nor of the token, and keeps the log-ins of its own user.
        expect(calls().split("\n").filter((line) => line.startsWith(builder)).join()).not.toMatch(/127\.0\.0\.1|--authfile|type=image/);
        expect(calls()).not.toContain("push.to.ken");
        expect(leftovers()).toEqual([]);
        await gone();
      });

      test("what the registry has is not sent again, and a push that breaks off is taken up by another connection", async () => {
        withBuildah(manifest);
        registry.blobs.set(digestOf("a layer"), Buffer.from("a layer"));
        registry.options = { failing: 2 };
        expect(await outcome("buildah")).toMatchObject({ code: 0 });
        expect(calls().match(/ port-forward /g)).toHaveLength(3);
        expect(registry.requests.filter((request) => request.startsWith("POST"))).toHaveLength(3);
        await gone();
      });

      test("a registry that goes on refusing is told with its words, and nothing is tagged", async () => {
        withBuildah(manifest);
        registry.options = { failing: 100 };
        expect(await outcome("buildah")).toMatchObject({ code: 1, out: "", err: expect.stringContaining("status 500 no space") });
        expect(registry.tagsOf("team/maven-dind")).toEqual([]);
        await gone();
      });

      test("a builder that hands out no images is told what to take instead", async () => {
        program("buildx", 'if [ "$1" = build ]; then echo "ERROR: OCI exporter is not supported for the docker driver." >&2; exit 1; fi');
        expect(await outcome("buildx")).toMatchObject({ code: 1, err: expect.stringContaining("docker buildx create --use") });
      });

      test("killed outright, it takes the way into the cluster along", async () => {
        program("buildah", 'case "$*" in *build*) sleep 3 ;; esac');
        const child = spawn(path.join(scripts, "build-image.sh"), ["--repository", `${service}/team/maven-dind`, "--context", "context", "--pulled-from", "localhost:61500", "--builder", "buildah", "--insecure"], { env: { PATH: `${path.join(folder, "bin")}:/usr/bin:/bin`, HOME: folder, TMPDIR: path.join(folder, "tmp"), FOLDER: folder }, cwd: folder });
        child.stderr.on("data", (chunk: Buffer) => String(chunk).includes("building with") && child.kill("SIGKILL"));
        await new Promise((resolve) => child.on("close", resolve));
        for (let tries = 0; tries < 100 && fs.existsSync(`/proc/${fs.readFileSync(path.join(folder, "forward"), "utf8").trim()}`); tries++) await new Promise((resolve) => setTimeout(resolve, 100));
        await gone();
      });
    });

    test.each([[0, true, 0], [1, true, 0], [1, false, 1]])("buildctl ends with %d, having pushed: %s; the build ends with %d", async (ended, pushed, code) => {
      const port = registry.host.split(":")[1];
      const digest = registry.seed("team/maven-dind", "one", ...(pushed ? ["maven-dind-0123456789ab"] : []));
      program("kubectl", `case "$*" in
        *secret*) printf push.to.ken ;;
        *port-forward*) echo "Forwarding from 127.0.0.1:${port} -> 5001"; echo $$ >"$FOLDER/forward"; exec sleep 60 ;;
        *"get pod"*) echo true ;;
        *"tar -C /work"*) mkdir -p "$FOLDER/work" && tar -C "$FOLDER/work" -xf - ;;
        *metadata.json) ${pushed ? `echo '{"containerimage.digest": "${digest}"}'` : "exit 1"} ;;
        *buildctl*) echo "error: context deadline exceeded" >&2; exit ${ended} ;;
      esac`);
      fs.writeFileSync(path.join(folder, "further.toml"), `[registry."${service}"]\n  http = true\n[registry."docker.io"]\n  mirrors = ["m"]\n`);
      const result = await ask(["--force", "--insecure"], { BUILDKITD_CONFIG: path.join(folder, "further.toml"), IMAGE_MIRRORS: "docker.io=other.test\nquay.io=quay.test" });
      expect(result).toMatchObject({ code, out: pushed ? `localhost:61500/team/maven-dind@${digest}\n` : "" });
      expect(result.err.includes("build or push failed (exit 1)")).toBe(code === 1);
      // A table of TOML stands once: the further file's goes before.
      expect(fs.readFileSync(path.join(folder, "work/buildkitd.toml"), "utf8")).toBe(`[registry."quay.io"]\n  mirrors = ["quay.test"]\n[registry."${service}"]\n  http = true\n[registry."docker.io"]\n  mirrors = ["m"]\n`);
      await gone();
    });

    test("the kubeconfig of a state is found in the home of whoever runs it", async () => {
      program("kubectl", 'echo "kubectl of $KUBECONFIG" >>"$FOLDER/calls"; exit 1');
      await ask(["--inspect"], { KUBECONFIG: "~/.kube/prod" });
      await ask(["--inspect"], { KUBECONFIG: "/etc/kube:~/x" });
      expect(calls()).toContain(`kubectl of ${folder}/.kube/prod\n`);
      expect(calls()).toContain("kubectl of /etc/kube:~/x\n");
    });

    test.each([
      [["--builder", "buildah", "--cache", "registry"], "keeps no cache in a registry in the cluster"],
      [["--repository", "registry.example.com/team/maven-dind"], "is no Service of the cluster"],
    ])("%j is bad input", async (args, words) => {
      expect(await ask(args)).toMatchObject({ code: 2, out: "", err: expect.stringContaining(words) });
    });

    test("has no say in where base images are looked up", async () => {
      registry.seed("base", "one", "1");
      const ended = await ask(["--resolve", `${registry.host}/base:1`]);
      expect(ended.out + ended.err).not.toContain("kubectl");
      expect(calls()).not.toContain("kubectl");
    });
  });

  test("a registry at an IPv6 address is taken", async () => {
    buildah("one");
    const ended = await run("build-image.sh", ["--repository", "[::1]:1/team/maven-dind", "--context", "context", "--insecure", "--dry-run"]);
    expect(ended.err).toMatch(/^buildah push .*\[::1\\?\]:1\/team\/maven-dind:/m);
  });

  test("--help and --dry-run change nothing", async () => {
    buildah("one");
    const help = await run("build-image.sh", ["--help"]);
    expect(help).toMatchObject({ code: 0, err: "" });
    for (const option of ["--repository", "--dry-run", "--builder", "--delete", "REGISTRY_PASSWORD"]) expect(help.out).toContain(option);
    const dry = await build(["--dry-run", "--stack", "dev"], { REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "s3cret" });
    expect(dry).toMatchObject({ code: 0, out: "" });
    expect(dry.err).toMatch(/^buildah build .*--build-arg BASE_IMAGE=example\.org\/base:1/m);
    expect(dry.err).toMatch(/^buildah push .*maven-dind:maven-dind-0123456789ab/m);
    expect(dry.err).not.toContain("s3cret");
    expect(calls()).not.toContain("buildah");
    expect(pushed()).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  test.each([
    ["FROM debian:12@sha256:abc", [], "debian:12@sha256:abc"],
    ["ARG BASE_IMAGE=a\nFROM x AS y\nFROM --platform=$BUILDPLATFORM ${BASE_IMAGE} AS z", ["BASE_IMAGE=b:1@sha256:def"], "b:1@sha256:def"],
    ["ARG BASE_IMAGE=a:1\nFROM $BASE_IMAGE", [], "a:1"],
    ["FROM debian:12 AS one\nFROM one", [], undefined],
    ["FROM scratch", [], undefined],
  ])("the image says what it was made from: %j with %j", async (text, args, base) => {
    fs.writeFileSync(path.join(folder, "context/Dockerfile"), `${text}\n`);
    const dry = await run("build-image.sh", ["--repository", `${registry.host}/team/maven-dind`, "--context", "context", "--insecure", "--dry-run", ...args.flatMap((arg) => ["--arg", arg])]);
    const labels = [...dry.err.matchAll(/--label org\.opencontainers\.image\.base\.(\S+)/g)].map(([, label]) => label);
    expect(labels).toEqual(base === undefined ? [] : [`name=${base}`, ...(base.includes("@") ? [`digest=${base.split("@")[1]}`] : [])]);
  });

  test.each([
    ["docker.io/moby/buildkit:v0.31.1-rootless", { runAsUser: 1000 }, "--oci-worker-no-process-sandbox"],
    ["docker.io/moby/buildkit:v0.31.1", { privileged: true }, ""],
  ])("in-cluster with %s: a job that ends by itself and holds no token", async (image, security, flags) => {
    const dry = await build(["--dry-run", "--builder", "in-cluster", "--namespace", "builds", "--buildkit-image", image]);
    expect(dry.code).toBe(0);
    const job = JSON.parse(dry.err.slice(dry.err.indexOf("{"), dry.err.lastIndexOf("\n}") + 2));
    expect(job.spec).toMatchObject({ backoffLimit: 0, activeDeadlineSeconds: 3600, ttlSecondsAfterFinished: 60 });
    const [container] = job.spec.template.spec.containers;
    expect(job.spec.template.spec.automountServiceAccountToken).toBe(false);
    expect(container).toMatchObject({ image, securityContext: security });
    expect("privileged" in container.securityContext).toBe("privileged" in security);
    expect(container.env[0].value).toContain(flags);
    expect(dry.err).toMatch(/^kubectl --namespace builds exec job\/build-maven-dind-\S+ -- buildctl-daemonless\.sh build/m);
  });

  test.each([["", undefined], ["linux/arm64", ["arm64"]], ["linux/amd64,linux/arm/v7", ["amd64", "arm"]]])("in-cluster for %j: the job runs on a node that it builds for", async (platforms, values) => {
    const dry = await build(["--dry-run", "--builder", "in-cluster", "--namespace", "builds", "--buildkit-image", "buildkit:1", ...(platforms === "" ? [] : ["--platforms", platforms])]);
    const { affinity } = JSON.parse(dry.err.slice(dry.err.indexOf("{"), dry.err.lastIndexOf("\n}") + 2)).spec.template.spec;
    expect(affinity?.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms).toEqual(values && [{ matchExpressions: [{ key: "kubernetes.io/arch", operator: "In", values }] }]);
  });

  test("--inspect tells present, missing and unknown apart", async () => {
    expect((await build(["--inspect"])).out).toBe("missing\n");
    registry.seed("team/maven-dind", "one", "maven-dind-0123456789ab");
    expect((await build(["--inspect"])).out).toBe("present\n");
    registry.options = { login: { username: "me", password: "x" } };
    expect((await build(["--inspect"])).out).toBe("unknown\n");
    expect((await build(["--inspect"], { REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "x" })).out).toBe("present\n");
    registry.options.tokens = true;
    expect((await build(["--inspect"], { REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "x" })).out).toBe("present\n");
    expect((await build(["--inspect", "--repository", "127.0.0.1:1/team/x"])).out).toBe("unknown\n");
    expect(pushed()).toEqual([]);
  });

  test("asks again where the registry is too busy, and never sends a log-in to an address without TLS", async () => {
    registry.seed("team/maven-dind", "one", "maven-dind-0123456789ab");
    registry.options = { busy: 2 };
    expect((await build(["--inspect"])).out).toBe("present\n");

    // A registry with TLS that asks for a log-in over plain HTTP.
    program("curl", `printf "curl %s\\n" "$*" >>"$FOLDER/calls"
      while [ $# -gt 0 ]; do case $1 in --dump-header) printf 'HTTP/1.1 401\\r\\nWWW-Authenticate: Bearer realm="http://example.org/token",service="x"\\r\\n' >"$2" ;; esac; shift; done; printf 401`);
    const ended = await run("build-image.sh", ["--repository", "example.org/team/x", "--tag", "t", "--inspect"], { REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "s3cret" });
    expect(ended.out).toBe("unknown\n");
    expect(calls()).not.toContain("/token");
  });

  test("--delete deletes the image, but not one that another stack has", async () => {
    registry.seed("team/maven-dind", "one", "maven-dind-0123456789ab", "dev-20260101t000000z", "prod-20260101t000000z");
    const kept = await build(["--delete", "--stack", "dev"]);
    expect(kept).toMatchObject({ code: 0, out: "" });
    expect(kept.err).toContain("another stack has it as prod-20260101t000000z");
    expect(registry.tagsOf("team/maven-dind")).toHaveLength(3);

    registry.clear();
    registry.seed("team/maven-dind", "one", "maven-dind-0123456789ab", "dev-20260101t000000z");
    registry.seed("team/maven-dind", "two", "prod-20260101t000000z");
    expect((await build(["--delete", "--stack", "dev"])).code).toBe(0);
    expect(registry.tagsOf("team/maven-dind")).toEqual(["prod-20260101t000000z"]);
    expect(await build(["--delete", "--stack", "dev"])).toMatchObject({ code: 0, err: expect.stringContaining("nothing to delete") });

    registry.seed("team/maven-dind", "one", "maven-dind-0123456789ab");
    registry.options.deleteStatus = 405;
    expect(await build(["--delete", "--stack", "dev"])).toMatchObject({ code: 1, err: expect.stringContaining("storage.delete.enabled") });
  });

  test.each([true, false])("writes a bill of materials and stores it beside the image (referrers API: %s)", async (referrers) => {
    buildah("one");
    program("syft", 'printf "syft %s\\n" "$*" >>"$FOLDER/calls"; for a; do case $a in spdx-json=*) echo \'{"spdxVersion":"SPDX-2.3"}\' >"${a#*=}" ;; esac; done');
    registry.options = { referrers };
    const ended = await build(["--sbom", "sbom"]);
    expect(ended.code).toBe(0);
    expect(JSON.parse(fs.readFileSync(path.join(folder, "sbom/maven-dind-0123456789ab.spdx.json"), "utf8"))).toEqual({ spdxVersion: "SPDX-2.3" });
    const digest = ended.out.trim().split("@")[1];
    expect(calls()).toContain(`syft scan registry:${registry.host}/team/maven-dind@${digest}`);
    expect(calls().match(/syft scan/g)).toHaveLength(1);
    const artifacts = [...registry.manifests.values()].map((m) => JSON.parse(m.body)).filter((m) => m.artifactType === "application/spdx+json");
    expect(artifacts).toEqual([expect.objectContaining({ subject: { mediaType: "application/vnd.oci.image.manifest.v1+json", digest, size: registry.manifests.get(digest)?.body.length } })]);
    expect(artifacts[0].layers[0].digest).toBe(digestOf('{"spdxVersion":"SPDX-2.3"}\n'));
    expect(registry.tagsOf("team/maven-dind").includes(digest.replace(":", "-"))).toBe(!referrers);
  });
});

describe("a build cache in the registry", () => {
  /** Stand-in for buildx: pushes an image and a cache of this content. */
  function buildx(content: string): void {
    const manifest = (text: string) => JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: { digest: digestOf(text) }, layers: [] });
    const put = (text: string, target: string) => `/usr/bin/curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary '${manifest(text)}' http://${registry.host}/v2/team/${target} >/dev/null`;
    for (const text of [content, `cache ${content}`]) registry.blobs.set(digestOf(text), Buffer.from(text));
    program("docker", "exit 1");
    program("buildx", `while [ $# -gt 0 ]; do case $1 in --metadata-file) printf '{"containerimage.digest": "%s"}' '${digestOf(manifest(content))}' >"$2"; ${put(content, "maven-dind/manifests/maven-dind-0123456789ab")}; ${put(`cache ${content}`, "maven-dind-cache/manifests/latest")} ;; esac; shift; done`);
  }
  const cached = () => [...registry.manifests.values()].filter(({ body }) => body.includes(digestOf("cache one")) || body.includes(digestOf("cache two"))).length;

  test("that another takes the place of is deleted, or nobody would find it again", async () => {
    for (const content of ["one", "two"]) {
      buildx(content);
      expect(await build(["--builder", "buildx", "--cache", "registry", "--force"])).toMatchObject({ code: 0 });
    }
    expect([cached(), registry.tagsOf("team/maven-dind-cache")]).toEqual([1, ["latest"]]);
    // The image that it was made with is nobody's cache.
    expect(registry.manifests.size).toBe(3);
    // Without one nothing is asked for it.
    registry.requests.length = 0;
    expect(await build(["--builder", "buildx", "--force"])).toMatchObject({ code: 0 });
    expect(registry.requests.filter((request) => !request.startsWith("PUT")).join()).not.toContain("maven-dind-cache");
  });

  test("stays where it is the same, and where the registry refuses to delete it the build succeeds", async () => {
    buildx("one");
    for (let i = 0; i < 2; i++) expect(await build(["--builder", "buildx", "--cache", "registry", "--force"])).toMatchObject({ code: 0 });
    expect(cached()).toBe(1);
    buildx("two");
    registry.options.deleteStatus = 405;
    expect(await build(["--builder", "buildx", "--cache", "registry", "--force"])).toMatchObject({ code: 0 });
    expect(cached()).toBe(2);
  });
});

describe("clean-images.sh", () => {
  const clean = (args: string[] = [], environment: Record<string, string> = {}): Promise<Ended> => run("clean-images.sh", ["--registry", `${registry.host}/team`, "--insecure", ...args, "maven-dind"], environment);
  const cluster = (...digests: string[]): void => program("kubectl", `printf 'kubectl %s\\n' "$*" >>"$FOLDER/calls"; echo '${JSON.stringify({ items: digests.map((d) => ({ image: `r/x@${d}` })) })}'`);
  const day = (n: number): string => `202601${String(n).padStart(2, "0")}t000000z`;

  test("keeps what the cluster names, the last versions of each stack and foreign tags, and deletes the rest", async () => {
    const old = registry.seed("team/maven-dind", "old", "maven-dind-000000000001", `dev-${day(1)}`);
    const running = registry.seed("team/maven-dind", "running", "maven-dind-000000000002", `dev-${day(2)}`);
    const before = registry.seed("team/maven-dind", "before", "maven-dind-000000000003", `dev-${day(3)}`, `dev-${day(4)}`);
    const now = registry.seed("team/maven-dind", "now", "maven-dind-000000000004", `dev-${day(5)}`);
    const prod = registry.seed("team/maven-dind", "prod", "maven-dind-000000000005", `prod-${day(1)}`);
    const foreign = registry.seed("team/maven-dind", "foreign", "v1.0");
    const orphan = registry.seed("team/maven-dind", "orphan", "maven-dind-000000000006");
    cluster(running);

    const dry = await clean(["--keep", "2", "--dry-run"]);
    expect(dry.code).toBe(0);
    expect(registry.manifests.size).toBe(7);
    const ended = await clean(["--keep", "2"]);
    const deleted = [old, orphan].map((d) => `${registry.host}/team/maven-dind@${d}`).sort();
    expect(ended.out.trim().split("\n").sort()).toEqual(deleted);
    expect(dry.out.trim().split("\n").sort()).toEqual(deleted);
    expect([...registry.manifests.keys()].sort()).toEqual([before, foreign, now, prod, running].sort());
    expect(ended.err).toContain("in use in the cluster");
    expect(ended.err).toContain("one of the last 2 of stack prod");
    expect(ended.err).toContain("tag v1.0 was made by somebody else");
    expect(calls()).toMatch(/^kubectl --request-timeout 30s get pods,.*configmaps --all-namespaces/m);
  });

  test("--caches deletes the build caches, and nothing else does", async () => {
    const used = registry.seed("team/maven-dind", "one", "maven-dind-000000000001");
    const caches = ["a", "b", "c"].map((tag) => registry.seed("team/maven-dind-cache", `cache ${tag}`, tag));
    const other = registry.seed("team/gradle-dind-cache", "other", "latest");
    cluster(used);
    expect(await clean()).toMatchObject({ code: 0, out: "" });
    expect(await clean(["--caches", "--dry-run"])).toMatchObject({ code: 0, err: expect.stringContaining("(build cache)") });
    expect(registry.manifests.size).toBe(5);
    const ended = await clean(["--caches"]);
    expect(ended).toMatchObject({ code: 0 });
    expect(ended.out.trim().split("\n").sort()).toEqual(caches.map((digest) => `${registry.host}/team/maven-dind-cache@${digest}`).sort());
    expect([...registry.manifests.keys()].sort()).toEqual([other, used].sort());
  });

  describe("of the built-in registry", () => {
    const builtIn = (args: string[] = []) => run("clean-images.sh", ["--built-in", "image-registry/team", "--kube-context", "prod", ...args, "maven-dind"]);
    const kubectl = (building: string, used: string) =>
      program("kubectl", `printf 'kubectl %s\\n' "$*" >>"$FOLDER/calls"
        case "$*" in
          *port-forward*) echo "Forwarding from 127.0.0.1:${registry.host.split(":")[1]} -> 5001"; echo $$ >"$FOLDER/forward"; exec sleep 60 ;;
          *secret*image-registry-push*) printf push.to.ken ;;
          *image-build*) printf %s '${building}' ;;
          *rollout*) ;;
          *) echo '{"image": "localhost:61500/team/maven-dind@${used}"}' ;;
        esac`);

    test("deletes what is unused, keeps what pods run, and has the space freed by a fresh start", async () => {
      const running = registry.seed("team/maven-dind", "running", "maven-dind-000000000001", `dev-${day(1)}`);
      const old = registry.seed("team/maven-dind", "old", "maven-dind-000000000002", `dev-${day(2)}`);
      const now = registry.seed("team/maven-dind", "now", "maven-dind-000000000003", `dev-${day(3)}`);
      kubectl("", running);
      const dry = await builtIn(["--keep", "1", "--dry-run"]);
      expect(dry).toMatchObject({ code: 0, out: `image-registry.image-registry.svc:5001/team/maven-dind@${old}\n` });
      expect(calls()).not.toContain("rollout");
      expect(await builtIn(["--keep", "1"])).toMatchObject({ code: 0, out: dry.out });
      expect([...registry.manifests.keys()].sort()).toEqual([running, now].sort());
      expect(calls()).toMatch(/^kubectl --request-timeout 30s --context prod --namespace image-registry rollout restart deployment\/image-registry$/m);
      expect(() => process.kill(Number(fs.readFileSync(path.join(folder, "forward"), "utf8")), 0)).toThrow("ESRCH");
    });

    test("looks through every image that it is told of, by one way into the cluster", async () => {
      const [old, other] = ["gradle-dind", "maven-dind"].map((name) => registry.seed(`team/${name}`, `old ${name}`, `${name}-000000000002`));
      kubectl("", "sha256:none");
      const ended = await builtIn(["gradle-dind"]);
      expect(ended).toMatchObject({ code: 0, out: ["gradle-dind", "maven-dind"].map((name, i) => `image-registry.image-registry.svc:5001/team/${name}@${[old, other][i]}\n`).join("") });
      expect(calls().match(/port-forward/g)).toHaveLength(1);
    });

    test("waits for no build that runs: it refuses, and names it", async () => {
      const old = registry.seed("team/maven-dind", "old", "maven-dind-000000000002");
      kubectl("build-maven-dind-1", old);
      expect(await builtIn()).toMatchObject({ code: 1, out: "", err: expect.stringContaining("an image is being built (build-maven-dind-1)") });
      expect(registry.manifests.size).toBe(1);
    });

    test.each([[["--registry", "r.example.com/team"], "not both"], [["--no-cluster"], "--no-cluster"]])("beside %j is bad input", async (args, words) => {
      expect(await builtIn(args)).toMatchObject({ code: 2, err: expect.stringContaining(words) });
    });
  });

  test("takes the bill of materials along", async () => {
    buildah("one");
    program("syft", 'for a; do case $a in spdx-json=*) echo "{}" >"${a#*=}" ;; esac; done');
    expect((await build(["--sbom", "sbom"])).code).toBe(0);
    expect(registry.manifests.size).toBe(3);
    cluster();
    expect((await clean()).code).toBe(0);
    expect(registry.manifests.size).toBe(0);
    expect(leftovers()).toEqual([]);
  });

  test("deletes nothing if a cluster cannot be asked, unless told that none counts", async () => {
    registry.seed("team/maven-dind", "old", "maven-dind-000000000001");
    program("kubectl", 'echo "connection refused" >&2; exit 1');
    const ended = await clean();
    expect(ended).toMatchObject({ code: 1, out: "", err: expect.stringContaining("connection refused") });
    expect(registry.manifests.size).toBe(1);
    expect((await clean(["--no-cluster"])).code).toBe(0);
    expect(registry.manifests.size).toBe(0);
  });

  test("says so if the registry refuses, and names bad input", async () => {
    registry.seed("team/maven-dind", "old", "maven-dind-000000000001");
    registry.options.deleteStatus = 405;
    expect(await clean(["--no-cluster"])).toMatchObject({ code: 1, out: "", err: expect.stringContaining("storage.delete.enabled") });
    expect(await clean(["--keep", "0"])).toMatchObject({ code: 2 });
    expect(await run("clean-images.sh", [])).toMatchObject({ code: 2, err: expect.stringContaining("--registry") });
    expect(await run("clean-images.sh", ["--help"])).toMatchObject({ code: 0, err: "" });
  });
});

describe("prepareImages", () => {
  const args = (base: string): AgentImagesArgs => ({
    registry: { host: registry.host, prefix: "team", insecure: true },
    builder: "buildah",
    images: { "maven-dind": { context: path.join(folder, "context"), args: { BASE_IMAGE: base } } },
  });
  const cwd = process.cwd();
  beforeEach(() => process.chdir(path.resolve(scripts, "../..")));
  afterEach(() => process.chdir(cwd));

  test("pins a base image given by tag, leaves one given by digest, and looks for the built image", async () => {
    const digest = registry.seed("jenkins/inbound-agent", "base", "1");
    const prepared = await prepareImages(args(`${registry.host}/jenkins/inbound-agent:1`));
    expect(prepared.images["maven-dind"].args).toEqual({ BASE_IMAGE: `${registry.host}/jenkins/inbound-agent:1@${digest}` });
    expect(prepared.found).toEqual({ "maven-dind": "missing" });
    expect((await prepareImages(prepared)).images).toEqual(prepared.images);
  });

  test("names every base image that cannot be found, and the fix", async () => {
    await expect(prepareImages(args(`${registry.host}/jenkins/inbound-agent:2`))).rejects.toThrow(/image maven-dind, argument BASE_IMAGE: .*there is no image .*@sha256:/);
  });

  test("one whose registry is not reached is told with curl's words and the key that leads there, and no login", async () => {
    const told = (base: string, further: Partial<AgentImagesArgs>) => prepareImages({ ...args(base), ...further }).catch((error: Error) => error.message);
    const mirrors = { registries: { "docker.io": "127.0.0.1:1/hub" }, insecure: [] };
    expect(await told("debian:12", { mirrors })).toMatch(/127\.0\.0\.1:1\/hub\/library\/debian:12 has no digest and could not be looked up \(.*\(curl: \(7\) .*127\.0\.0\.1 port 1.*\)\), at the mirror of mirrors\.registries\["docker\.io"\]; give it/);
    const proxied = (address: string) => ({ surroundings: { proxy: { http: address, https: address, noProxy: [], login: { username: "ann", password: "s3c/ret" } } } });
    expect(await told("debian:12", proxied("http://127.0.0.1:1"))).toMatch(/\(curl: \(7\) .*\)\), through proxy\.https; give it/);
    const odd = await told("debian:12", proxied("nothing://127.0.0.1:1"));
    expect(odd).toMatch(/curl: .*127\.0\.0\.1:1/);
    expect(odd).not.toMatch(/s3c|ann:/);
    expect(await told("127.0.0.1:1/x/y:1", {})).toMatch(/\(curl: [^;]*\)\); give it/);
    for (const each of [odd, await told("debian:12", { mirrors })]) expect(each).not.toContain("000");
  });

  test("a registry that allows no pulls without a log-in: pullSecrets help, and the message says so", async () => {
    const digest = registry.seed("library/base", "base", "1");
    registry.options = { limited: true, login: { username: "robot", password: "p:w" } };
    const given = args(`${registry.host}/library/base:1`);
    await expect(prepareImages(given)).rejects.toThrow(/status 429.*pullSecrets.*mirrors\.registries/);
    const prepared = await prepareImages({ ...given, registry: { ...given.registry, host: "127.0.0.1:1" } }, { others: [{ registry: "elsewhere.test", username: "x", password: "y" }] }).catch((error: Error) => error.message);
    expect(prepared).toMatch(/could not be looked up/);
    const others = [{ registry: registry.host, username: "robot", password: "p:w" }];
    expect(await run("build-image.sh", ["--repository", "127.0.0.1:1/x/y", "--resolve", `${registry.host}/library/base:1`], { ...otherLogins(others) })).not.toMatchObject({ err: expect.stringContaining("429") });
    expect((await prepareImages(given, { username: "robot", password: "p:w" })).images["maven-dind"].args).toEqual({ BASE_IMAGE: `${registry.host}/library/base:1@${digest}` });
  });

  test("base images come from the mirrors, whoever names them, and Dockerfiles get what they declare", async () => {
    const digest = registry.seed("hub/library/debian", "base", "12");
    const mirrors = { registries: { "docker.io": `${registry.host}/hub` }, insecure: [], debian: "http://deb.test/debian", npm: "https://npm.test" };
    fs.writeFileSync(path.join(folder, "context/Dockerfile"), "ARG BASE_IMAGE=debian:12\nARG PINNED\nFROM ${PINNED} AS other\nFROM ${BASE_IMAGE}\nARG MIRROR_DEBIAN\nARG MIRROR_PIP\n");
    const given = args("unused");
    given.images["maven-dind"].args = { PINNED: `docker.io/x/y@${digest}` };
    const led = await prepareImages({ ...given, mirrors });
    expect(led.images["maven-dind"].args).toEqual({ PINNED: `${registry.host}/hub/x/y@${digest}`, BASE_IMAGE: `${registry.host}/hub/library/debian:12@${digest}`, MIRROR_DEBIAN: "http://deb.test/debian" });
    given.images["maven-dind"].args = { PINNED: `docker.io/x/y@${digest}`, BASE_IMAGE: `r.test/z@${digest}`, MIRROR_DEBIAN: "http://mine.test" };
    expect((await prepareImages({ ...given, mirrors })).images["maven-dind"].args).toMatchObject({ MIRROR_DEBIAN: "http://mine.test", BASE_IMAGE: `r.test/z@${digest}` });
    expect((await prepareImages({ ...given, mirrors: { registries: {}, insecure: [] } })).images).toEqual(given.images);
  });

  test("unreachable registry for the built image: unknown, not an error", async () => {
    const offline = { ...args(`example.org/base@${digestOf("")}`), registry: { host: "127.0.0.1:1", prefix: "", insecure: true } };
    expect((await prepareImages(offline)).found).toEqual({ "maven-dind": "unknown" });
  });

  test("pins the default of an argument that names an image, too, with other arguments filled in", async () => {
    const digest = registry.seed("library/gradle", "base", "8.1-jdk21");
    fs.writeFileSync(path.join(folder, "context/Dockerfile"), `ARG VERSION=1\nARG GRADLE_IMAGE=${registry.host}/library/gradle:\${VERSION}-jdk21\nFROM \${GRADLE_IMAGE}\n`);
    const given = args("unused");
    given.images["maven-dind"].args = { VERSION: "8.1" };
    expect((await prepareImages(given)).images["maven-dind"].args).toEqual({ VERSION: "8.1", GRADLE_IMAGE: `${registry.host}/library/gradle:8.1-jdk21@${digest}` });
  });
});
