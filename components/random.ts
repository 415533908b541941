import * as command from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";

/** 32 random letters and digits (190 bits), made once and kept in the state as a secret; others where one of `triggers` changes. */
export function randomText(name: string, parent: { parent: pulumi.Resource }, triggers?: number[]): pulumi.Output<string> {
  const made = new command.local.Command(
    name,
    {
      create: "LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32",
      interpreter: ["/bin/sh", "-c"],
      logging: "none",
      ...(triggers && { triggers }),
    },
    // A later wording of the command must not make a new one.
    { ...parent, additionalSecretOutputs: ["stdout"], ignoreChanges: ["create", "interpreter", "logging"] },
  );
  return pulumi.secret(made.stdout);
}
