import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import { REPO } from "../../sandbox/paths";
import { ensureToolImage } from "./tool-image";

const images = (parse(fs.readFileSync(path.join(REPO, "Pulumi.sandbox.yaml"), "utf8")) as { config: Record<string, Record<string, string>> }).config["build-platform:images"];

/** Makes sure that the sandbox's registry has an image of Traefik. */
export const ensureTraefikImage = (): Promise<string> => ensureToolImage("traefik", images.traefik);
