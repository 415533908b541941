import * as fc from "fast-check";
import { stringify } from "yaml";
import { removedKeys, removedWarning } from "../../components/jenkins-master/removed";

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

test("is said once, with what to do, and not at all where nothing is gone", () => {
  expect(removedWarning(["jenkins.systemMessage"])).toMatch(/^no longer set by any document: jenkins\.systemMessage\. .*keeps them.*set what it shall be/);
  expect(removedWarning([])).toBeUndefined();
});
