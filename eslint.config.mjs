import js from "@eslint/js";
import ts from "typescript-eslint";

/** Rules that find mistakes; how lines look is left to those who write them. Run by `npm run check`. */
export default ts.config(
  { ignores: ["**/*.js", "**/*.mjs", "tests/fixtures"] },
  js.configs.recommended,
  ts.configs.recommended,
  {
    languageOptions: { parserOptions: { project: "./tsconfig.json", tsconfigRootDir: import.meta.dirname } },
    rules: {
      // Where `any` is needed a comment says why; the compiler is strict about the rest.
      "@typescript-eslint/no-explicit-any": "off",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_", destructuredArrayIgnorePattern: "^_", ignoreRestSiblings: true }],
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/await-thenable": "error",
      eqeqeq: ["error", "always"],
      "object-shorthand": "error",
      // Texts are searched for control characters and for blanks in a row.
      "no-control-regex": "off",
      "no-regex-spaces": "off",
      // People read the message, which says what it was about; a cause is shown to nobody.
      "preserve-caught-error": "off",
      // Takes what a loop or a callback reads later for unused.
      "no-useless-assignment": "off",
      // What is named at run time only is required.
      "@typescript-eslint/no-require-imports": "off",
    },
  },
);
