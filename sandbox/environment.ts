import * as path from "node:path";
import { BUILDKITD_CONFIG, KUBECONFIG, PLUGINS, STATE, TOOLS } from "./paths";

/**
 * The variables that `sandbox env` exports; `$PATH` in PATH is the caller's own.
 * Official plugins on the caller's PATH come first and so win over the offline ones.
 * The passphrase is well known: the sandbox is throwaway and its backend is readable by root alone.
 */
export function environment(): Record<string, string> {
  return {
    PATH: `$PATH:${path.join(TOOLS, "bin")}:${PLUGINS}`,
    KUBECONFIG,
    BUILDKITD_CONFIG,
    PULUMI_BACKEND_URL: `file://${path.join(STATE, "pulumi")}`,
    PULUMI_HOME: path.join(STATE, "pulumi-home"),
    PULUMI_CONFIG_PASSPHRASE: "sandbox",
    PULUMI_SKIP_UPDATE_CHECK: "1",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "1",
  };
}
