import { issuerRemark, readIssuer, type IssuerFacts } from "../../checks/issuer";
import { judgeIngress } from "../../cli/doctor";
import { parseConfig } from "../../config";
import { environment, stackConfig } from "./mocks";

const parse = (ingress: object) => parseConfig({ ...stackConfig("sandbox"), domain: "ci.example.com", ingress }, environment).config;
const config = parse({ clusterIssuer: "letsencrypt" });
const ready = (status: string, message?: string): IssuerFacts => ({ api: true, issuer: { status: { conditions: [{ type: "Ready", status, ...(message && { message }) }] } } });

test.each<[string, IssuerFacts, RegExp]>([
  ["no cert-manager", { api: false, issuer: null }, /knows no Certificate of cert-manager\.io\/v1/],
  ["no such issuer", { api: true, issuer: null }, /^letsencrypt, which is not there$/],
  ["one that is not ready", ready("False", "the account is not registered"), /which is not ready: the account is not registered/],
])("%s is said by preview and doctor", (_, facts, found) => {
  expect(issuerRemark(config, facts)).toMatchObject({ key: "ingress.clusterIssuer", found: expect.stringMatching(found) });
  expect(judgeIngress(config, 1, {}, undefined, new Date(), facts)).toContainEqual(expect.objectContaining({ state: "warn", where: "ingress.clusterIssuer" }));
});

test("doctor fails where preview stops: beside a Gateway of the stack's own a Certificate is an object of cert-manager's", () => {
  const state = (ingress: object, facts: IssuerFacts) => judgeIngress(parse({ clusterIssuer: "letsencrypt", ...ingress }), 1, {}, undefined, new Date(), facts).find(({ where }) => where === "ingress.clusterIssuer")?.state;
  expect(state({ controller: "gateway" }, { api: false, issuer: null })).toBe("fail");
  expect(state({ controller: "traefik" }, { api: false, issuer: null })).toBe("warn");
  expect(state({ controller: "gateway" }, { api: true, issuer: null })).toBe("warn");
});

test("nothing is said of one that is ready, that was made just now, or that may not be looked at", () => {
  for (const facts of [ready("True"), { api: true, issuer: {} }, {}]) expect(issuerRemark(config, facts)).toBeUndefined();
  expect(issuerRemark(parse({ tlsSecret: "tls" }), { api: false })).toBeUndefined();
});

test("the cluster is asked where an issuer is named, and only there", async () => {
  const asked: string[] = [];
  const answer = (value: unknown) => async (path: string) => (asked.push(path), value);
  expect(await readIssuer(config, answer({}))).toEqual({ api: true, issuer: {} });
  expect(asked).toEqual(["/apis/cert-manager.io/v1", "/apis/cert-manager.io/v1/clusterissuers/letsencrypt"]);
  expect(await readIssuer(config, answer(null))).toEqual({ api: false, issuer: null });
  expect(await readIssuer(config, answer(undefined))).toEqual({});
  expect(await readIssuer(parse({ tlsSecret: "tls" }), answer({}))).toBeUndefined();
  expect(asked).toHaveLength(6);
});
