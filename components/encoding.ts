/** A text as Secrets and log-ins hold it. */
export const base64 = (text: string): string => Buffer.from(text).toString("base64");

/** The data of a Secret. */
export const secretData = (texts: Record<string, string>): Record<string, string> => Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, base64(text)]));
