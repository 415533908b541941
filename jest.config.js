/** Unit tests run anywhere; e2e tests need the sandbox and run one file at a time. */
const transform = { "^.+\\.ts$": ["@swc/jest", { jsc: { parser: { syntax: "typescript" }, target: "es2022" }, module: { type: "commonjs" } }] };

module.exports = {
  projects: [
    { displayName: "unit", testMatch: ["<rootDir>/tests/unit/**/*.test.ts"], transform },
    { displayName: "campaign", testMatch: ["<rootDir>/tests/campaign/**/*.test.ts"], transform },
    { displayName: "e2e", testMatch: ["<rootDir>/tests/e2e/**/*.test.ts"], transform },
  ],
};
