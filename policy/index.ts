import * as fs from "node:fs";
import * as path from "node:path";
import { PolicyPack, type ResourceValidationPolicy, type StackValidationPolicy } from "@pulumi/policy";
import { parse } from "yaml";
import { plainSecrets, rules } from "./rules";

/** The rules as a policy pack: `pulumi preview --policy-pack policy`, and the same for `up`. */

const root = path.resolve(__dirname, "..");

/** The stack in a URN, `urn:pulumi:STACK::PROJECT::TYPE::NAME`. */
const stackOf = (urn: string): string => urn.split("::")[0].slice("urn:pulumi:".length);

const resourcePolicies = rules.map(
  (rule): ResourceValidationPolicy => ({
    name: rule.name,
    description: rule.description,
    enforcementLevel: rule.level,
    validateResource: ({ type, name, urn, props, opts }, report) => {
      if (type.startsWith("kubernetes:")) rule.check({ type, name, props, protect: opts.protect }, stackOf(urn)).forEach((finding) => report(finding));
    },
  }),
);

const stackFile: StackValidationPolicy = {
  name: "no-secret-in-plain-config",
  description: "The stack's file holds no password, token or key in plain text.",
  enforcementLevel: "mandatory",
  validateStack: ({ resources }, report) => {
    const file = path.join(root, `Pulumi.${stackOf(resources[0]?.urn ?? "")}.yaml`);
    if (!fs.existsSync(file)) return;
    const declared = parse(fs.readFileSync(path.join(root, "Pulumi.yaml"), "utf8")).config ?? {};
    const secretKeys = Object.keys(declared).filter((key) => declared[key]?.secret === true);
    plainSecrets(parse(fs.readFileSync(file, "utf8"))?.config ?? {}, secretKeys).forEach((finding) => report(`${path.basename(file)}: ${finding}`));
  },
};

new PolicyPack("build-platform", { policies: [...resourcePolicies, stackFile] });
