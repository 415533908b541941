import * as fc from "fast-check";
import { canonicalQuantity, canonicalResources, isQuantity, quantityMillis, scratch } from "../../components/quantity";

const suffixes = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
const quantity = fc.tuple(fc.integer({ min: 0, max: 100000 }), fc.constantFrom(...suffixes)).map(([n, suffix]) => `${n}${suffix}`);

test.each([
  ["1000m", "1"],
  ["500m", "500m"],
  ["0.5", "500m"],
  ["1.5Gi", "1536Mi"],
  ["2048Mi", "2Gi"],
  ["1024Ki", "1Mi"],
  ["15G", "15G"],
  ["15000M", "15G"],
  ["2000", "2k"],
  ["512", "512"],
  ["0.5Ki", "512"],
  ["0Gi", "0"],
])("the API server gives %s back as %s", (given, back) => {
  expect(canonicalQuantity(given)).toBe(back);
});

test.each(["", "Gi", "-1", "1gb", "1 Gi", "1e3", "1.Gi", "0x1"])("%j is no quantity", (text) => {
  expect(isQuantity(text)).toBe(false);
  expect(() => canonicalQuantity(text)).toThrow(text);
});

test("the canonical form keeps the value and is its own canonical form", () => {
  fc.assert(
    fc.property(quantity, (text) => {
      const canonical = canonicalQuantity(text);
      expect(quantityMillis(canonical)).toBe(quantityMillis(text));
      expect(canonicalQuantity(canonical)).toBe(canonical);
    }),
  );
});

test("resources keep what is absent absent", () => {
  expect(canonicalResources({ requests: { cpu: "1000m" }, limits: { memory: "2048Mi" } })).toEqual({ requests: { cpu: "1" }, limits: { memory: "2Gi" } });
  expect(canonicalResources({})).toEqual({});
});

test("ephemeralStorage is what Kubernetes calls ephemeral-storage; its own name is taken as well", () => {
  expect(canonicalResources({ requests: { ephemeralStorage: "2048Mi" }, limits: { cpu: "1", ephemeralStorage: "10Gi" } })).toEqual({ requests: { "ephemeral-storage": "2Gi" }, limits: { cpu: "1", "ephemeral-storage": "10Gi" } });
  expect(canonicalResources(canonicalResources({ limits: { ephemeralStorage: "10Gi" } }))).toEqual({ limits: { "ephemeral-storage": "10Gi" } });
});

test("scratch space has a bound where one is given", () => {
  expect([scratch(), scratch("1024Mi")]).toEqual([{ emptyDir: {} }, { emptyDir: { sizeLimit: "1Gi" } }]);
});
