/** A page as one HTML file that loads nothing and runs nothing. */

export const escaped = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

/**
 * @param title what the page is of, for a browser's narrow tab
 * @param verdict how that is
 * @param body HTML, in which text goes through the function it is given
 * @param heading the title in full
 */
export function htmlFrame(title: string, verdict: { text: string; good: boolean }, body: (escape: typeof escaped) => string, heading = title): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}: ${escaped(verdict.text)}</title>
<style>
:root { color-scheme: light dark; --good: #1a6b2f; --bad: #a3210f; --line: #8886; }
@media (prefers-color-scheme: dark) { :root { --good: #7ddc95; --bad: #ff9d8a; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td:last-child, li { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
</style>
</head>
<body>
<h1>${escaped(heading)}: <span class="${verdict.good ? "good" : "bad"}">${escaped(verdict.text)}</span></h1>
${body(escaped)}
</body>
</html>
`;
}
