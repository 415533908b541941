/** What a Jenkins runs at its start that only shows whether it comes up: no build starts. Groovy without single quotes. */
export const quietHook = "hudson.model.Hudson.instance.doQuietDown()";

/** As whom every pod runs that mounts a home: the user jenkins of its image, which owns the files. */
export const homeSecurity = {
  runAsUser: 1000,
  runAsGroup: 1000,
  runAsNonRoot: true,
  fsGroup: 1000,
  // A home of many files is not walked at every start.
  fsGroupChangePolicy: "OnRootMismatch",
  seccompProfile: { type: "RuntimeDefault" },
};
