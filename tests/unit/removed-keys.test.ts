import * as fc from "fast-check";
import { parse, stringify } from "yaml";
import fresh from "../../components/jenkins-master/contracts/fresh.json";
import { removed, removedKeys, setBackFile } from "../../components/jenkins-master/removed";
import upstream from "../../images/upstream.json";

test.each<[string, Record<string, string>, Record<string, string>, string[]]>([
  ["a scalar", { "a.yaml": "jenkins: { systemMessage: x, quietPeriod: 1 }" }, { "a.yaml": "jenkins: { quietPeriod: 2 }" }, ["jenkins.systemMessage"]],
  ["a document", { "a.yaml": "{}", "b.yml": "unclassified: { mailer: { smtpHost: x, smtpPort: 25 } }" }, { "a.yaml": "{}" }, ["unclassified.mailer.smtpHost", "unclassified.mailer.smtpPort"]],
  ["nothing where a key moves to another document", { "a.yaml": "jenkins: { systemMessage: x }" }, { "b.yaml": "jenkins: { systemMessage: x }" }, []],
  ["nothing where a realm is replaced by another", { "a.yaml": "jenkins: { securityRealm: { local: {} } }" }, { "a.yaml": "jenkins: { securityRealm: { ldap: {} } }" }, []],
  ["nothing of a list that is shorter", { "a.yaml": "jenkins: { clouds: [1, 2] }" }, { "a.yaml": "jenkins: { clouds: [1] }" }, []],
  ["nothing of what is no document or broken", { "seed.groovy": "jenkins: { a: 1 }", "b.yaml": "a: [", "c.yaml": "x-common: { a: 1 }" }, {}, []],
])("%s", (_, before, after, expected) => {
  expect(removedKeys(before, after)).toEqual(expected);
});

const documents = fc.dictionary(fc.stringMatching(/^[a-z]{1,3}\.yaml$/), fc.dictionary(fc.constantFrom("jenkins", "unclassified"), fc.dictionary(fc.stringMatching(/^[a-z]{1,2}$/), fc.oneof(fc.integer(), fc.array(fc.integer())), { maxKeys: 5 })).map((each) => stringify(each)), { maxKeys: 5 });

test("nothing is gone from documents that stay or grow", () => {
  fc.assert(fc.property(documents, documents, (some, more) => {
    const grown = { ...Object.fromEntries(Object.entries(more).map(([file, text]) => [`more-${file}`, text])), ...some };
    expect(removedKeys(some, some)).toEqual([]);
    expect(removedKeys(some, grown)).toEqual([]);
    const kept = removedKeys(some, {});
    expect(removedKeys(grown, some).filter((key) => kept.includes(key))).toEqual([]);
  }));
});

describe("what nobody sets any more", () => {
  const before = { "site.yaml": "jenkins: { systemMessage: x, quietPeriod: 60, globalNodeProperties: [1], views: [1] }\nunclassified: { location: { adminAddress: a@b.c } }\ntool: { git: { installations: [] } }" };
  const { document = "", warning } = removed(before, {});

  test("is set back where a new Jenkins' value is known, and nothing is that people may have filled in Jenkins", () => {
    expect(parse(document)).toEqual({ jenkins: { systemMessage: "", quietPeriod: 5, globalNodeProperties: [] }, unclassified: { location: { adminAddress: "address not configured yet <nobody@nowhere>" } } });
  });
  test("is said once, each key with what becomes of it", () => {
    expect(warning).toMatch(/^no longer set by any document, set back to what a new Jenkins has: jenkins\.globalNodeProperties \[\], jenkins\.quietPeriod 5, jenkins\.systemMessage "", .*kept in Jenkins.*: jenkins\.views, tool\.git\.installations; set what/);
    expect(removed({ [setBackFile]: document }, {})).toEqual({ document });
  });
  test("stays set back until a document says it again, and further keys come to it", () => {
    const next = removed({ [setBackFile]: document, "more.yaml": "jenkins: { scmCheckoutRetryCount: 3 }" }, { "site.yaml": "jenkins: { quietPeriod: 1 }" });
    expect((parse(next.document!) as { jenkins: object }).jenkins).toEqual({ systemMessage: "", globalNodeProperties: [], scmCheckoutRetryCount: 0 });
    expect(next.warning).toBe("no longer set by any document, set back to what a new Jenkins has: jenkins.scmCheckoutRetryCount 0");
  });
  test.each(["unclassified: { prometheusConfiguration: { path: x } }", "unclassified: { timestamper: { allPipelines: true } }", "security: { globalJobDslSecurityConfiguration: { useScriptSecurity: false } }", "security: { anonymizeSupportBundle: { enabled: true } }"])("is left alone where its plugin may have gone with it: %s", (text) => {
    expect(removed({ "a.yaml": text }, {}).document).toBeUndefined();
    expect(removed({ [setBackFile]: text }, {}).document).toBeUndefined();
  });
  test("takes a list that a new Jenkins has, not an empty one", () => {
    expect(parse(removed({ "a.yaml": "unclassified: { buildDiscarders: { configuredBuildDiscarders: [] } }" }, {}).document!)).toEqual({ unclassified: { buildDiscarders: { configuredBuildDiscarders: ["jobBuildDiscarder"] } } });
  });
  test("is none that another spelling sets", () => {
    expect(removed({ "a.yaml": "jenkins: { systemMessage: x }" }, { "b.yaml": "jenkins: { systemmessage: y }" })).toEqual({});
  });
  test("nothing: no document and no word", () => {
    expect(removed(before, before)).toEqual({});
  });
});

test("a new Jenkins' values are recorded with the pinned version", () => {
  // npm run contracts -- --fresh PORT records them anew.
  expect(fresh.jenkins).toBe(upstream.jenkins.tag.replace(/-.*/, ""));
});
