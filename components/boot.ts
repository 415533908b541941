/** What a Jenkins runs at its start that only shows whether it comes up: no build starts. Groovy without single quotes. */
export const quietHook = "hudson.model.Hudson.instance.doQuietDown()";
