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

/** What is to be said of an error that ends the program: a refusal's words, with the reason of each argument; of anything else also where it arose. */
export function wordsOf(error: Error): string {
  if (pulumi.InputPropertiesError.isInstance(error)) return [error.message, ...(error.errors ?? []).map(({ propertyPath, reason }) => `  ${propertyPath}: ${reason}`)].join("\n");
  return (pulumi.RunError.isInstance(error) ? undefined : (error as Error).stack) ?? (error as Error).message;
}
