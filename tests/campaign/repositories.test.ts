import { Bed } from "../backup-bed/bed";
import { NodeFolder, S3Server, SftpServer, type Repositories } from "../backup-bed/servers";

/** Each kind of repository with a real server behind it: backup, what is new in a second one, boot check, restore. */

jest.setTimeout(1_800_000);
const kinds: [string, Repositories][] = [
  ["s3", new S3Server(8004)],
  ["sftp", new SftpServer(8005)],
  ["folder", new NodeFolder("/var/lib/backup-of-the-bed")],
];

test.each(kinds)("%s: two backups, a boot check, a diff, and a restore with every file and build", async (kind, repositories) => {
  const bed = new Bed(`backup-${kind}`, repositories);
  try {
    await bed.upOnPlatform();
    await bed.job("first", 200_000);
    await bed.build("first", 2);
    // Where nothing is there yet, not even the bucket, it is made without being asked for again and again.
    expect((await bed.cli(["backup"])).stderr).not.toContain("still tries");
    const first = await bed.newest();
    await bed.build("first");
    const second = await bed.cli(["backup"]);
    // Only what is new travels.
    const [, whole, added] = second.stderr.match(/([\d.]+) MiB \(([\d.]+) MiB of it new\)/)!;
    expect(Number(added)).toBeLessThan(Number(whole) / 2);
    const listed = (await bed.cli(["list"])).stdout;
    expect(listed).toMatch(new RegExp(`^${first} .* 2 builds$`, "m"));
    expect(listed).toMatch(new RegExp(`^${await bed.newest()} .* 3 builds$`, "m"));
    const changed = (await bed.cli(["list", "diff", first, await bed.newest()])).stdout;
    expect(changed).toMatch(/^\+ .*\/jobs\/first\/builds\/3\b/m);
    expect(changed).toMatch(/^M .*\/jobs\/first\/nextBuildNumber$/m);
    expect((await bed.cli(["list", "verify"])).stderr).toMatch(/has loaded all 1 jobs and folders and 3 builds/);
    const [builds, files] = [await bed.builds(), await bed.hashes(await bed.volume())];
    await bed.cli(["restore", "--snapshot", "latest", "--yes"]);
    expect(await bed.builds()).toEqual(builds);
    const restored = await bed.hashes(await bed.volume());
    for (const [name, hash] of files) expect([name, restored.get(name)]).toEqual([name, hash]);
    await bed.unchanged();
    await bed.cli(["restore", "--confirm"]);
  } finally {
    await bed.down();
  }
});
