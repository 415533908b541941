import { ensureToolImage } from "./tool-image";

/** Makes sure that the sandbox's registry has the stand-in for BuildKit's rootless image; builds it from its pinned module if need be. */
export const ensureBuildkitImage = (): Promise<string> => ensureToolImage("buildkit", ["buildkitd", "buildctl"]);
