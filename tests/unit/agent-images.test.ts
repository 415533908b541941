import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import fc from "fast-check";
import { AgentImages, AgentImagesArgs, argProblems, baseImages, checkedReference, declaredArgs, dockerIgnore, imageContent, imageEnvironment, imageTag } from "../../components/agent-images";

const made: pulumi.runtime.MockResourceArgs[] = [];
const digest = `sha256:${"a".repeat(64)}`;

/** The mock engine hands over an object with a secret in it as one secret. */
const environmentOf = (resource: pulumi.runtime.MockResourceArgs): Record<string, string> => resource.inputs.environment?.value ?? resource.inputs.environment;

let folder: string;
beforeAll(async () => {
  await pulumi.runtime.setMocks(
    {
      newResource: (resource) => {
        made.push(resource);
        return { id: resource.name, state: { ...resource.inputs, stdout: `${environmentOf(resource)?.IMAGE_REPOSITORY}@${digest}\n` } };
      },
      call: (call) => call.inputs,
    },
    "build-platform",
    "test",
    false,
  );
});
beforeEach(() => {
  made.length = 0;
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "agent-images-"));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

/** Writes a build context; a path that ends in / is an empty folder. */
function context(name: string, files: Record<string, string>): string {
  const root = path.join(folder, name);
  fs.mkdirSync(root, { recursive: true });
  for (const [file, text] of Object.entries(files)) {
    fs.mkdirSync(path.join(root, file.endsWith("/") ? file : path.dirname(file)), { recursive: true });
    if (!file.endsWith("/")) fs.writeFileSync(path.join(root, file), text);
  }
  return root;
}

const dockerfile = "ARG BASE_IMAGE=scratch\nFROM ${BASE_IMAGE}\nCOPY . /\n";
const args = (over: Partial<AgentImagesArgs> = {}): AgentImagesArgs => ({
  registry: { host: "10.88.0.1:5000", prefix: "build-platform", insecure: true },
  builder: "buildah",
  images: { "maven-dind": { context: context("maven-dind", { Dockerfile: dockerfile, "a.txt": "a" }), args: { BASE_IMAGE: "docker.io/jenkins/inbound-agent:1" } } },
  ...over,
});
const promiseOf = <T>(output: pulumi.Output<T>): Promise<T> => new Promise((resolve) => output.apply(resolve));
const commands = (): pulumi.runtime.MockResourceArgs[] => made.filter((r) => r.type === "command:local:Command");
/** What is pending in the mock engine reaches it in a later turn. */
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 50));

describe("the content hash", () => {
  // A file must not have the name of one of the folders below.
  const fileName = fc.stringMatching(/^[a-zA-Z0-9_. -]{1,8}$/).filter((s) => s !== "." && s !== ".." && s.toLowerCase() !== "dockerfile" && s !== ".dockerignore" && s !== "y");
  const tree = fc.uniqueArray(fc.record({ folder: fc.constantFrom("", "x/", "x/y/", "z/"), name: fileName, bytes: fc.uint8Array({ maxLength: 40 }), executable: fc.boolean() }), {
    minLength: 1,
    maxLength: 8,
    selector: (f) => `${f.folder}${f.name}`.toLowerCase(),
  });
  type Tree = { folder: string; name: string; bytes: Uint8Array; executable: boolean }[];

  /** Writes the files in the given order and returns the hash. */
  function hashOf(files: Tree, seconds = 0): string {
    const root = fs.mkdtempSync(path.join(folder, "t-"));
    fs.writeFileSync(path.join(root, "Dockerfile"), dockerfile);
    for (const f of files) {
      fs.mkdirSync(path.join(root, `d-${f.folder}`), { recursive: true });
      const file = path.join(root, `d-${f.folder}`, f.name);
      fs.writeFileSync(file, f.bytes);
      fs.chmodSync(file, f.executable ? 0o755 : 0o644);
      fs.utimesSync(file, seconds, seconds);
    }
    return imageContent({ context: root }, "buildah").hash;
  }

  test("does not depend on the order in which files were written, on times or on where the folder is", () => {
    fc.assert(fc.property(tree, fc.integer({ min: 1, max: 2_000_000_000 }), (files, time) => hashOf(files) === hashOf([...files].reverse(), time)), { numRuns: 60 });
  });

  test("changes with any byte, name or executable bit, and with a file more or less", () => {
    fc.assert(
      fc.property(tree, fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 }), (files, at, byteAt, flip) => {
        const before = hashOf(files);
        const target = files[at % files.length];
        const changed = (file: Tree[number]): Tree => files.map((f) => (f === target ? file : f));
        const bytes = Uint8Array.from(target.bytes);
        if (bytes.length > 0) bytes[byteAt % bytes.length] ^= flip;
        const variants = [
          changed({ ...target, bytes: bytes.length > 0 ? bytes : Uint8Array.of(flip) }),
          changed({ ...target, bytes: Uint8Array.from([...target.bytes, 0]) }),
          changed({ ...target, executable: !target.executable }),
          changed({ ...target, name: `${target.name}+` }),
          files.filter((f) => f !== target),
          [...files, { folder: "new/", name: "file", bytes: new Uint8Array(), executable: false }],
        ];
        const hashes = [before, ...variants.map((v) => hashOf(v))];
        expect(new Set(hashes).size).toBe(hashes.length);
      }),
      { numRuns: 60 },
    );
  });

  test("does not depend on the order of arguments, and changes with each argument's name and value", () => {
    const root = context("c", { Dockerfile: dockerfile });
    const hash = (a: Record<string, string>): string => imageContent({ context: root, args: a }, "buildah").hash;
    fc.assert(
      fc.property(fc.dictionary(fc.stringMatching(/^[A-Z]{1,6}$/), fc.string(), { minKeys: 1, maxKeys: 5 }), (a) => {
        const reversed = Object.fromEntries(Object.entries(a).reverse());
        const [key, value] = Object.entries(a)[0];
        expect(hash(reversed)).toBe(hash(a));
        expect(hash({ ...a, [key]: `${value}x` })).not.toBe(hash(a));
        expect(hash({ ...a, lower: "" })).not.toBe(hash(a));
      }),
    );
  });

  test("changes with the builder, the platforms and the Dockerfile's name", () => {
    const root = context("c", { Dockerfile: dockerfile, "other/Dockerfile": dockerfile });
    const hashes = [
      imageContent({ context: root }, "buildah"),
      imageContent({ context: root }, "buildx"),
      imageContent({ context: root }, "in-cluster"),
      imageContent({ context: root }, "buildah", ["linux/amd64"]),
      imageContent({ context: root }, "buildah", ["linux/amd64", "linux/arm64"]),
      imageContent({ context: root, dockerfile: "other/Dockerfile" }, "buildah"),
    ].map((c) => c.hash);
    expect(new Set(hashes).size).toBe(hashes.length);
    expect(imageContent({ context: root }, "buildah", ["linux/arm64", "linux/amd64"]).hash).toBe(hashes[4]);
  });

  test("sees a link's target, an empty folder, and no mode beyond executable", () => {
    const root = context("c", { Dockerfile: dockerfile, a: "1", b: "1" });
    const hash = (): string => imageContent({ context: root }, "buildah").hash;
    const plain = hash();
    fs.chmodSync(path.join(root, "a"), 0o600);
    expect(hash()).toBe(plain);
    fs.mkdirSync(path.join(root, "empty"));
    const withFolder = hash();
    expect(withFolder).not.toBe(plain);
    fs.symlinkSync("a", path.join(root, "link"));
    const toA = hash();
    fs.unlinkSync(path.join(root, "link"));
    fs.symlinkSync("b", path.join(root, "link"));
    expect(new Set([plain, withFolder, toA, hash()]).size).toBe(4);
  });

  test("leaves out what .dockerignore names, but never the Dockerfile or the ignore file itself", () => {
    const root = context("c", { Dockerfile: dockerfile, ".dockerignore": "*\n!kept\n", kept: "1", out: "1" });
    const before = imageContent({ context: root }, "buildah");
    expect(Object.keys(before.files)).toEqual([".dockerignore", "Dockerfile", "kept"]);
    fs.writeFileSync(path.join(root, "out"), "2");
    expect(imageContent({ context: root }, "buildah")).toEqual(before);
    for (const file of ["kept", "Dockerfile", ".dockerignore"]) {
      const was = fs.readFileSync(path.join(root, file));
      fs.appendFileSync(path.join(root, file), "# more\n");
      expect(imageContent({ context: root }, "buildah").hash).not.toBe(before.hash);
      fs.writeFileSync(path.join(root, file), was);
    }
  });

  test("follows a Dockerfile that is a link to a file that the ignore file leaves out", () => {
    const root = context("c", { Containerfile: dockerfile, ".dockerignore": "*\n" });
    fs.symlinkSync("Containerfile", path.join(root, "Dockerfile"));
    const before = imageContent({ context: root }, "buildah").hash;
    fs.appendFileSync(path.join(root, "Containerfile"), "USER 1000\n");
    expect(imageContent({ context: root }, "buildah").hash).not.toBe(before);
  });

  test("is what it was: an unchanged context is not built again by a newer release", () => {
    const root = context("c", {
      Dockerfile: "FROM a\n", ".dockerignore": "*\n!kept\n!Sub/**\nSub/*.md\n**/secret\n# c\n!Sub/c++\nSub/[a-b]x\n",
      kept: "1", out: "2", "Sub/a.txt": "3", "Sub/A.MD": "4", "Sub/a.md": "5", "Sub/secret/x": "6", "Sub/deep/secret": "7", "Sub/deep/y": "8", "Sub/ax": "9", "Sub/cx": "10", "Sub/c++": "11", "Sub/empty/": "",
    });
    fs.chmodSync(path.join(root, "kept"), 0o755);
    fs.symlinkSync("a.txt", path.join(root, "Sub/link"));
    const content = imageContent({ context: root, args: { B: "2", A: "1" } }, "buildah", ["linux/amd64"]);
    expect(Object.keys(content.files)).toEqual([".dockerignore", "Dockerfile", "Sub/A.MD", "Sub/a.txt", "Sub/c++", "Sub/cx", "Sub/deep/y", "Sub/empty", "Sub/link", "kept"]);
    expect(content.hash).toBe("8fa9be9086d6fdf462f8e3bed23f93f5c981a60d22e9cd047f95e464e5ea477f");
  });

  test("lists folders instead of files in a large context", () => {
    const files = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`many/f${i}`, String(i)]));
    const content = imageContent({ context: context("c", { Dockerfile: dockerfile, ...files }) }, "buildah");
    expect(Object.keys(content.files).sort()).toEqual(["Dockerfile", "many/"]);
    expect(content.files["many/"]).toMatch(/^101 [0-9a-f]{12}$/);
  });

  test("lists what a variable of the environment takes, of however many files a context has", () => {
    const root = context("many", { Dockerfile: dockerfile });
    for (let i = 0; i < 20_000; i++) fs.writeFileSync(path.join(root, `file-${i}`), "");
    const content = imageContent({ context: root }, "buildah");
    expect(content.files).toEqual({ "20001 files": expect.stringMatching(/^[0-9a-f]{12}$/) });
    const environment = imageEnvironment("many", content, { registry: { host: "r", prefix: "p", insecure: false }, images: { many: { context: root } }, builder: "buildah" });
    expect(spawnSync("/bin/sh", ["-c", "echo $IMAGE_TAG"], { env: environment, encoding: "utf8" }).stdout).toBe(`${environment.IMAGE_TAG}\n`);
    fs.appendFileSync(path.join(root, "file-7"), "x");
    expect(imageContent({ context: root }, "buildah").files).not.toEqual(content.files);
  }, 60_000);

  test("a script counts the same whichever line ends a checkout gave it; anything else counts as it is", () => {
    const hash = (text: string) => imageContent({ context: context("ends", { Dockerfile: dockerfile, run: text }) }, "buildah").hash;
    expect(hash("#!/bin/sh\r\necho hi\r\n")).toBe(hash("#!/bin/sh\necho hi\n"));
    expect(hash("echo hi\r\n")).not.toBe(hash("echo hi\n"));
    expect(hash("#!/bin/sh\r\n\0")).not.toBe(hash("#!/bin/sh\n\0"));
  });
});

describe(".dockerignore", () => {
  test.each([
    ["*.md", ["README.md"], ["docs/README.md", "README.txt"]],
    ["**/*.md", ["README.md", "docs/a/b.md"], ["b.mdx"]],
    ["docs", ["docs", "docs/a", "docs/a/b"], ["docs2", "a/docs"]],
    ["/docs/", ["docs/a"], ["a/docs"]],
    ["a/**/z", ["a/z", "a/b/c/z", "a/b/z/y"], ["z", "b/a/z"]],
    ["file?", ["file1"], ["file", "file12", "file/"]],
    ["[a-c]x", ["ax", "cx"], ["dx"]],
    ["[^a]x", ["bx"], ["ax"]],
    ["# comment\n\n  spaced  ", ["spaced"], ["# comment"]],
    ["*\n!keep\nkeep/secret", ["x", "keep/secret"], ["keep", "keep/this"]],
    ["./here", ["here"], ["there"]],
    ["a.b", ["a.b"], ["aXb"]],
    ["\\*star", ["*star"], ["xstar"]],
    ["c++\na(b)\n{c}|^d$", ["c++", "a(b)", "{c}|^d$"], ["c", "ccc", "ab", "d"]],
    ["[^+(]x\n\\+y", ["ax", "+y"], ["+x", "(x", "y"]],
    ["Readme", ["Readme"], ["README"]],
  ])("%j", (text, ignored, kept) => {
    const matches = dockerIgnore(text);
    expect(ignored.filter((f) => !matches(f))).toEqual([]);
    expect(kept.filter(matches)).toEqual([]);
  });
});

test("declaredArgs finds every ARG of a Dockerfile and nothing else", () => {
  const text = 'ARG A\nARG B=1 C="x y" D\n# ARG E\nFROM ${A}\n  arg F=$B\nRUN echo ARG G\nENV H=1\nARG I=a \\\n  J=b\nRUN <<X\nARG K\nX\n';
  expect([...declaredArgs(text)].sort()).toEqual(["A", "B", "C", "D", "F", "I", "J"]);
});

test("baseImages finds what a Dockerfile takes from other images", () => {
  const text = [
    "ARG A",
    'ARG V=1 W="2"',
    "ARG G=r/gradle:${V}-$W",
    "FROM ${A} AS a",
    "ARG V=9",
    "FROM --platform=$BUILDPLATFORM $G as Built",
    "FROM debian:$V",
    "COPY --from=built --chown=1 /x /x",
    "COPY --from=0 /x /x",
    "COPY --chown=1 --from=nginx:1 /x \\",
    "  /x",
    "RUN --mount=type=bind,from=r/tools:2,target=/t --network=none true",
    "RUN <<EOF",
    "FROM nothing",
    "EOF",
    "# FROM $D",
    "RUN FROM=$E echo --from=x",
    "RUN --mount=type=cache,target=/c --mount=from=r/more:1,target=/t \\",
    "  # between",
    "  true",
    "FROM scratch",
    "from a",
    "FROM $MISSING",
  ].join("\n");
  expect(baseImages(text, { W: "3", A: "base:1" })).toEqual([
    { instruction: "FROM ${A}", reference: "base:1", arg: "A" },
    { instruction: "FROM $G", reference: "r/gradle:1-3", arg: "G" },
    { instruction: "FROM debian:$V", reference: "debian:1" },
    { instruction: "COPY --from=nginx:1", reference: "nginx:1" },
    { instruction: "RUN --mount=from=r/tools:2", reference: "r/tools:2" },
    { instruction: "RUN --mount=from=r/more:1", reference: "r/more:1" },
    { instruction: "FROM $MISSING", reference: undefined, arg: "MISSING" },
  ]);
});

describe("AgentImages", () => {
  test("makes one command for each image and passes on the digest that the script printed", async () => {
    const two = args();
    two.images["gradle-dind"] = { context: context("gradle-dind", { Dockerfile: dockerfile }) };
    const images = new AgentImages("images", two);
    expect(await promiseOf(images.references["maven-dind"])).toBe(`10.88.0.1:5000/build-platform/maven-dind@${digest}`);
    expect(await promiseOf(images.references["gradle-dind"])).toBe(`10.88.0.1:5000/build-platform/gradle-dind@${digest}`);
    expect(commands().map((c) => c.name).sort()).toEqual(["images-gradle-dind", "images-maven-dind"]);
    const [command] = commands();
    expect(command.inputs.create).toBe("scripts/images/build-image.sh");
    expect(command.inputs.environment).toEqual({
      IMAGE_NAME: "maven-dind",
      IMAGE_REPOSITORY: "10.88.0.1:5000/build-platform/maven-dind",
      IMAGE_TAG: imageTag("maven-dind", imageContent(two.images["maven-dind"], "buildah")),
      IMAGE_CONTEXT: two.images["maven-dind"].context,
      IMAGE_DOCKERFILE: "Dockerfile",
      IMAGE_ARGS: "BASE_IMAGE=docker.io/jenkins/inbound-agent:1",
      IMAGE_BUILDER: "buildah",
      IMAGE_PLATFORMS: "",
      IMAGE_CACHE: "",
      IMAGE_SBOM: "",
      IMAGE_FILES: expect.stringMatching(/^\{"Dockerfile":"644 [0-9a-f]{12}","a.txt":"644 [0-9a-f]{12}"\}$/),
      IMAGE_STACK: "test",
      IMAGE_MISSING: "",
      REGISTRY_INSECURE: "true",
    });
    // Replacement would delete before it builds; an update keeps the former image until the new one is there.
    expect(command.inputs).not.toHaveProperty("triggers");
    expect(command.inputs).not.toHaveProperty("delete");
  });

  test("passes the password as a secret in the environment only, and keeps the references readable", async () => {
    const images = new AgentImages("images", args({ registry: { host: "r.example.org", prefix: "", insecure: false, username: "me", password: pulumi.secret("s3cret") } }));
    expect(await pulumi.isSecret(images.references["maven-dind"])).toBe(false);
    expect(await promiseOf(images.references["maven-dind"])).toBe(`r.example.org/maven-dind@${digest}`);
    const [command] = commands();
    const { REGISTRY_PASSWORD, ...others } = environmentOf(command);
    expect(REGISTRY_PASSWORD).toBe("s3cret");
    expect(command.inputs.environment.value).toBeDefined();
    expect(JSON.stringify({ ...command.inputs, environment: others })).not.toContain("s3cret");
  });

  test("makes a namespace for the BuildKit jobs, and only for the builder that runs there", async () => {
    const namespaces = (): pulumi.runtime.MockResourceArgs[] => made.filter((r) => r.type === "kubernetes:core/v1:Namespace");
    await promiseOf(new AgentImages("images", args()).references["maven-dind"]);
    expect(namespaces()).toEqual([]);
    expect(Object.keys(environmentOf(commands()[0])).filter((key) => key.startsWith("BUILDKIT_"))).toEqual([]);

    made.length = 0;
    await promiseOf(new AgentImages("images", args({ builder: "in-cluster", inCluster: { image: "docker.io/moby/buildkit:v0.31.1-rootless" } })).references["maven-dind"]);
    expect(namespaces().map((n) => n.inputs.metadata)).toEqual([expect.objectContaining({ name: "image-builds", labels: expect.objectContaining({ "pod-security.kubernetes.io/enforce": "privileged" }) })]);
    expect(environmentOf(commands()[0])).toMatchObject({ BUILDKIT_IMAGE: "docker.io/moby/buildkit:v0.31.1-rootless", BUILDKIT_NAMESPACE: "image-builds", BUILDKIT_CONTEXT: "" });
  });

  test("deletes from the registry on destroy only if told so", async () => {
    const images = new AgentImages("images", args({ deleteOnDestroy: true }));
    await promiseOf(images.references["maven-dind"]);
    expect(commands()[0].inputs.delete).toBe("scripts/images/build-image.sh --delete");
  });

  test("gives an image that the registry lost a reason to be built, and no other", async () => {
    for (const [state, reason] of [["missing", /^not in the registry at /], ["present", /^$/], ["unknown", /^$/]] as const) {
      made.length = 0;
      const images = new AgentImages("images", args({ found: { "maven-dind": state } }));
      await promiseOf(images.references["maven-dind"]);
      expect(commands()[0].inputs.environment.IMAGE_MISSING).toMatch(reason);
    }
  });

  test("refuses an answer of the script that is no reference by digest", () => {
    expect(checkedReference("maven-dind", `r/maven-dind@${digest}\n`)).toBe(`r/maven-dind@${digest}`);
    for (const answer of ["", "r/maven-dind:latest", `log line\nr/maven-dind@${digest}`, "r/maven-dind@sha256:abc"]) {
      expect(() => checkedReference("maven-dind", answer)).toThrow(/image maven-dind: .*expected/s);
    }
  });

  test("reports every mistake at once, each with field, finding and fix, and makes no resource", async () => {
    const good = context("good", { Dockerfile: dockerfile });
    fs.writeFileSync(path.join(folder, "Outside"), dockerfile);
    fs.symlinkSync("../Outside", path.join(good, "Linked"));
    const bad = args({
      registry: { host: "https://r.example.org/x", prefix: "Team/", insecure: false, username: "me" },
      builder: "kaniko" as never,
      platforms: ["amd64"],
      images: {
        Maven: { context: good },
        none: { context: path.join(folder, "none") },
        outside: { context: good, dockerfile: "../Outside" },
        linked: { context: good, dockerfile: "Linked" },
        nofile: { context: good, dockerfile: "Containerfile" },
        typo: { context: good, args: { BASE_IMGE: "x", BASE_IMAGE: "a\nb", HTTP_PROXY: "http://proxy" } },
      },
    });
    let error: pulumi.InputPropertiesError | undefined;
    try {
      new AgentImages("images", bad);
    } catch (e) {
      error = e as pulumi.InputPropertiesError;
    }
    expect(pulumi.InputPropertiesError.isInstance(error)).toBe(true);
    const byPath = Object.fromEntries((error?.errors ?? []).map((e) => [e.propertyPath, e.reason]));
    expect(Object.keys(byPath).sort()).toEqual(
      ["builder", "images.Maven", "images.linked.dockerfile", "images.nofile.dockerfile", "images.none.context", "images.outside.dockerfile", "images.typo.args.BASE_IMAGE", "images.typo.args.BASE_IMGE", "platforms", "registry.host", "registry.password", "registry.prefix"].sort(),
    );
    expect(byPath["images.typo.args.BASE_IMGE"]).toContain("it declares BASE_IMAGE");
    expect(byPath["images.none.context"]).toContain("none");
    expect(byPath["images.outside.dockerfile"]).toContain("outside the context");
    expect(byPath["images.linked.dockerfile"]).toContain("outside the context");
    await settled();
    expect(commands()).toEqual([]);
  });

  test("refuses an image that is not fixed, and takes one by digest or by argument", () => {
    const problems = (text: string): string[] => argProblems(args({ images: { x: { context: context("x", { Dockerfile: text }) } } })).map((p) => `${p.propertyPath}: ${p.reason}`);
    expect(problems("ARG V=1\nFROM debian:$V\nCOPY --from=nginx /a /a\n")).toEqual([
      expect.stringMatching(/^images\.x\.dockerfile: image x: "FROM debian:\$V" in .* is not a fixed image; give it by digest/),
      expect.stringContaining('"COPY --from=nginx"'),
    ]);
    expect(problems(`FROM debian:12@${digest} AS one\nFROM one\nCOPY --from=nginx@${digest} /a /a\n`)).toEqual([]);
    expect(problems("ARG BASE=debian:12\nFROM ${BASE}\n")).toEqual([]);
  });

  test("names a file whose name is no UTF-8", () => {
    const root = context("x", { Dockerfile: dockerfile });
    fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/caf`), Buffer.from([0xe9])]), "");
    expect(argProblems(args({ images: { x: { context: root } } })).map((p) => p.reason)).toEqual([expect.stringMatching(/^image x: a name in .* is no UTF-8 \(caf\uFFFD\); rename/)]);
    fs.writeFileSync(path.join(root, ".dockerignore"), "caf*\n");
    expect(argProblems(args({ images: { x: { context: root } } }))).toEqual([]);
  });

  test("refuses an in-cluster builder without an image, or with a cache folder", () => {
    expect(argProblems(args({ builder: "in-cluster", cache: "/var/cache/images" })).map((p) => p.propertyPath)).toEqual(["inCluster", "cache"]);
    expect(argProblems(args({ builder: "in-cluster", cache: "registry", inCluster: { image: "i" } }))).toEqual([]);
  });

  test.each(["10.88.0.1:5000", "registry.example.org", "localhost:5000", "[::1]:5000"])("takes %s as a host", (host) => {
    expect(argProblems(args({ registry: { host, prefix: "a/b-c", insecure: false } }))).toEqual([]);
  });
});
