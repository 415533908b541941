import * as cluster from "../../cli/backup/cluster";
import { Book } from "../../cli/backup/journal";

/** Steps that go on where they stopped; the cluster is one ConfigMap. */

jest.mock("../../cli/backup/cluster");

const phases = ["planned", "stopped", "filled", "started"] as const;
type Journal = { phase: (typeof phases)[number] };
const book = new Book<Journal>("work", "work");
let [done, said, kept]: [string[], string[], string[]] = [[], [], []];

beforeEach(() => {
  [done, said, kept] = [[], [], []];
  jest.mocked(cluster.random).mockReturnValue("ffffff");
  jest.mocked(cluster.target).mockReturnValue([]);
  jest.mocked(cluster.sleep).mockClear();
  jest.mocked(cluster.get).mockResolvedValue(undefined);
  jest.mocked(cluster.say).mockImplementation((text) => (said.push(text), true));
  jest.mocked(cluster.patch).mockImplementation((_kind, _name, change) => {
    done.push("hold");
    jest.mocked(cluster.get).mockResolvedValue(change as object);
    return Promise.resolve("");
  });
  jest.mocked(cluster.run).mockImplementation(() => {
    done.push("let go");
    jest.mocked(cluster.get).mockResolvedValue(undefined);
    return Promise.resolve({ code: 0, out: "", err: "" });
  });
  jest.mocked(cluster.kubectl).mockImplementation((_, input) => Promise.resolve((kept.push(JSON.parse((JSON.parse(input!) as { data: { state: string } }).data.state).phase as string), "")));
});

const proceed = (journal: Journal, dies?: string) =>
  book.proceed(journal, phases, ({ phase }) => `it stands at ${phase}`, async (step) => {
    for (const phase of phases.slice(1)) await step(phase, `be ${phase}`, () => (dies === phase ? Promise.reject(new Error("cut off")) : Promise.resolve(void done.push(phase))));
  });

test("each step that is done is kept, and the work is this process's meanwhile", async () => {
  await proceed({ phase: "planned" });
  expect(done).toEqual(["hold", "stopped", "filled", "started", "let go"]);
  expect(kept).toEqual(["stopped", "filled", "started"]);
  expect(said[0]).toBe(" • be stopped ...");
  expect(said[1]).toMatch(/^ ✓ be stopped \(0\.\d s\)$/);
});

test("what fails says where the work stands and lets go; the next run begins with that step", async () => {
  const journal: Journal = { phase: "planned" };
  await expect(proceed(journal, "filled")).rejects.toThrow("cut off\nit stands at stopped");
  expect(done).toEqual(["hold", "stopped", "let go"]);
  await proceed(journal);
  expect(done.slice(3)).toEqual(["hold", "filled", "started", "let go"]);
  expect(process.listenerCount("SIGINT")).toBe(0);
});

const held = (by: string, beat = new Date()) => ({ metadata: { resourceVersion: "7", annotations: { "build-platform/holder": `${by} ${beat.toISOString()} 2026-01-01T00:00:00.000Z` } }, data: { state: "{}" } });

test("another process that beat a moment ago is waited for, and refused where it still does: who, and since when", async () => {
  jest.mocked(cluster.get).mockImplementation(() => Promise.resolve(held("ci-7/31-aaaaaa")));
  await expect(proceed({ phase: "planned" })).rejects.toThrow("this work is being run by somebody else right now: process ci-7/31-aaaaaa, since 2026-01-01T00:00:00.000Z; run this again when that has ended");
  expect(cluster.sleep).toHaveBeenCalledWith(31);
  expect(done).toEqual([]);
});

test("one that was killed is not waited for once it has been silent for half a minute", async () => {
  jest.mocked(cluster.get).mockResolvedValue(held("ci-7/31-aaaaaa", new Date(Date.now() - 40_000)));
  await proceed({ phase: "planned" });
  expect(done).toContain("started");
});

test("of two that begin at once the second is refused", async () => {
  jest.mocked(cluster.get).mockResolvedValueOnce({ metadata: { resourceVersion: "6" } }).mockImplementation(() => Promise.resolve(held("ci-7/31-aaaaaa")));
  jest.mocked(cluster.patch).mockImplementation((_kind, _name, change) => Promise.reject(new Error(`the object has been modified: ${JSON.stringify(change)}`)));
  await expect(proceed({ phase: "planned" })).rejects.toThrow("process ci-7/31-aaaaaa");
  expect(done).toEqual([]);
});

test.each([
  ["a work that goes on keeps its ConfigMap", false, "annotate configmap work build-platform/holder-"],
  ["one with nothing to go on with takes it away", true, "delete configmap work"],
])("when it lets go, %s, and leaves another's alone", async (_, passing, command) => {
  const ran: string[] = [];
  let [there, other] = [false, false];
  jest.mocked(cluster.run).mockImplementation((_program, args) => Promise.resolve((ran.push(args.join(" ")), { code: 0, out: "", err: "" })));
  jest.mocked(cluster.patch).mockImplementation((_kind, _name, change) => {
    const kept = { ...(change as object), data: { state: "{}" } };
    jest.mocked(cluster.get).mockImplementation(() => Promise.resolve(other ? held("else/1-bbbbbb") : kept));
    return Promise.resolve("");
  });
  jest.mocked(cluster.kubectl).mockImplementation(() => Promise.resolve(((there = true), "")));
  const turn = new Book<object>("work", "work", passing);
  expect(await turn.alone(() => Promise.resolve("result"))).toBe("result");
  expect([there, ran]).toEqual([passing, [command]]);
  jest.mocked(cluster.get).mockResolvedValue(undefined);
  await turn.alone(() => Promise.resolve(void (other = true)));
  expect(ran).toEqual([command]);
});
