/**
 * References such as ${name} in JCasC documents, as the plugin configuration-as-code reads them: ${name:-default}, nested ones,
 * functions such as ${readFile:/path}, and ^${name} for a literal ${name}.
 */

/** Functions that may stand before a colon. */
export const lookups = ["base64", "decodeBase64", "file", "fileBase64", "json", "readFile", "readFileBase64", "sysProp", "trim"];

/** Puts what `expand` gives for it in the place of each reference; those inside it have been replaced by then. */
export function substitute(text: string, expand: (body: string) => string): string {
  let out = "";
  for (let i = 0; i < text.length; ) {
    if (text.startsWith("^${", i)) {
      out += "${";
      i += 3;
      continue;
    }
    if (!text.startsWith("${", i)) {
      out += text[i++];
      continue;
    }
    let depth = 1;
    let end = i + 2;
    for (; end < text.length && depth > 0; end++) {
      if (text.startsWith("${", end)) depth++;
      else if (text[end] === "}") depth--;
    }
    if (depth > 0) return out + text.slice(i);
    out += expand(substitute(text.slice(i + 2, end - 1), expand));
    i = end;
  }
  return out;
}

/** A reference taken apart: a function with what it is given, or a name and perhaps a default. */
export function referenceParts(body: string): { lookup: string; argument: string } | { name: string; fallback?: string } {
  const colon = body.indexOf(":");
  if (colon > 0 && body[colon + 1] !== "-" && lookups.includes(body.slice(0, colon))) return { lookup: body.slice(0, colon), argument: body.slice(colon + 1) };
  const split = body.indexOf(":-");
  return split < 0 ? { name: body } : { name: body.slice(0, split), fallback: body.slice(split + 2) };
}

/** Names that a text needs: those without a default. One that is put together from others is not known before. */
export function neededNames(text: string): string[] {
  const names: string[] = [];
  substitute(text, (body) => {
    const parts = referenceParts(body);
    if ("name" in parts && parts.fallback === undefined && !parts.name.includes("\0")) names.push(parts.name);
    return "\0";
  });
  return names;
}

/** Environment of the controller's container that Kubernetes, the image and the platform set in any case. */
export const givenEnvironment = [
  "CASC_JENKINS_CONFIG", "CASC_RELOAD_TOKEN", "COPY_REFERENCE_FILE_LOG", "HOME", "HOSTNAME", "JAVA_HOME", "JAVA_OPTS", "JENKINS_HOME", "JENKINS_INCREMENTALS_REPO_MIRROR", "JENKINS_SLAVE_AGENT_PORT",
  "JENKINS_UC", "JENKINS_UC_EXPERIMENTAL", "JENKINS_VERSION", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "LANG", "PATH", "REF", "SECRETS",
];
