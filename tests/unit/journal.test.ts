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
  jest.mocked(cluster.get).mockResolvedValue(undefined);
  jest.mocked(cluster.say).mockImplementation((text) => (said.push(text), true));
  jest.mocked(cluster.patch).mockImplementation(() => Promise.resolve((done.push("hold"), "")));
  jest.mocked(cluster.run).mockImplementation(() => Promise.resolve((done.push("let go"), { code: 0, out: "", err: "" })));
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

test("another process that beat a moment ago is waited for, and refused where it still does", async () => {
  jest.mocked(cluster.get).mockImplementation(() => Promise.resolve({ metadata: { annotations: { "build-platform/holder": `1-aaaaaa ${new Date().toISOString()}` } } }));
  await expect(proceed({ phase: "planned" })).rejects.toThrow("this work is being run by somebody else right now");
  expect(done).toEqual([]);
});
