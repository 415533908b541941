import { Arg, Copy, DockerfileParser, From, Run } from "dockerfile-ast";

/** The names that `ARG` instructions of a Dockerfile declare, in all stages. */
export function declaredArgs(dockerfile: string): Set<string> {
  return new Set(DockerfileParser.parse(dockerfile).getInstructions().flatMap((each) => (each instanceof Arg ? each.getProperties().map((property) => property.getName()) : [])));
}

/** An image of others that a Dockerfile takes something from. */
export interface BaseImage {
  /** The instruction's words, for messages: `FROM ${BASE_IMAGE}`, `COPY --from=debian:12`. */
  instruction: string;
  /** The image with build arguments filled in; undefined where an argument has no value. */
  reference?: string;
  /** The build argument that alone names the image, where there is one: setting it pins the image. */
  arg?: string;
}

/** The images of others in a Dockerfile's FROM, COPY and RUN --mount, with `args` before the defaults of its ARGs. */
export function baseImages(dockerfile: string, args: Record<string, string> = {}): BaseImage[] {
  const found: BaseImage[] = [];
  const values = new Map<string, string>();
  const stages = new Set<string>();
  const fill = (text: string): string | undefined => {
    let known = true;
    const filled = text.replace(/\$(?:\{(\w+)\}|(\w+))/g, (_, braced: string | undefined, bare: string) => {
      const value = values.get(braced ?? bare);
      if (value === undefined) known = false;
      return value ?? "";
    });
    return known && !filled.includes("$") ? filled : undefined;
  };
  const take = (instruction: string, image: string): void => {
    const reference = fill(image);
    if (reference === "scratch" || stages.has((reference ?? "").toLowerCase())) return;
    const [, braced, bare] = /^\$(?:\{(\w+)\}|(\w+))$/.exec(image) ?? [];
    found.push({ instruction, reference, ...((braced ?? bare) && { arg: braced ?? bare }) });
  };
  // A number is a stage, and builders fill in no argument here.
  const takeFrom = (instruction: string, image: string | null | undefined): void => {
    if (image && !/^\d+$/.test(image) && !image.includes("$")) take(`${instruction}${image}`, image);
  };

  let inStage = false;
  for (const each of DockerfileParser.parse(dockerfile).getInstructions()) {
    if (each instanceof Arg && !inStage) {
      for (const property of each.getProperties()) {
        const value = property.getValue();
        const given = args[property.getName()] ?? (value === null ? undefined : fill(value));
        if (given !== undefined) values.set(property.getName(), given);
      }
    } else if (each instanceof From) {
      inStage = true;
      const image = each.getImage() ?? "";
      take(`FROM ${image}`, image);
      const stage = each.getBuildStage();
      if (stage !== null) stages.add(stage.toLowerCase());
    } else if (each instanceof Copy || each instanceof Run) {
      for (const flag of each.getFlags()) {
        if (each instanceof Copy && flag.getName() === "from") takeFrom("COPY --from=", flag.getValue());
        if (each instanceof Run && flag.getName() === "mount") takeFrom("RUN --mount=from=", flag.getOption("from")?.getValue());
      }
    }
  }
  return found;
}
