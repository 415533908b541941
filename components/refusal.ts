import * as pulumi from "@pulumi/pulumi";

/**
 * An error that stops the program with its message alone. Pulumi's runtime hides the stack of such an error, and yet formats it,
 * which kept a refused preview waiting for 15 s; without one there is nothing to format.
 */
export function refusal(message: string): pulumi.RunError {
  const error = new pulumi.RunError(message);
  error.stack = undefined;
  return error;
}
