import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";

/** An authority of a test's own and what it signed, as files of a folder. */
export interface Authority {
  /** Its certificate. */
  file: string;
  pem: string;
  /** A server's certificate of it, for these names and addresses: files of the certificate and its key. */
  sign(name: string, ...names: string[]): { cert: string; key: string };
}

const openssl = (...args: string[]) => execFileSync("openssl", args, { stdio: ["ignore", "pipe", "ignore"] });
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** A certificate of nobody's for a host, in force from now on. */
export const selfSigned = (host: string, days: number): string =>
  openssl("req", "-x509", ...newKey, "-keyout", "/dev/null", "-days", String(days), "-subj", `/CN=${host}`, "-addext", `subjectAltName=DNS:${host}`).toString();

/** Makes one; nobody but the test has ever heard of it. */
export function authority(folder: string, name = "company"): Authority {
  const at = (file: string) => path.join(folder, file);
  const [file, key] = [at(`${name}.pem`), at(`${name}.key`)];
  openssl("req", "-x509", ...newKey, "-keyout", key, "-out", file, "-days", "3", "-subj", `/CN=${name} authority`, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign");
  return {
    file,
    pem: fs.readFileSync(file, "utf8"),
    sign(server, ...names) {
      const [request, extensions, cert, own] = [at(`${server}.csr`), at(`${server}.ext`), at(`${server}.crt`), at(`${server}.key`)];
      openssl("req", ...newKey, "-keyout", own, "-out", request, "-subj", `/CN=${server}`);
      fs.writeFileSync(extensions, `subjectAltName=${names.map((each) => `${/^[\d.]+$/.test(each) ? "IP" : "DNS"}:${each}`).join(",")}\n`);
      openssl("x509", "-req", "-in", request, "-CA", file, "-CAkey", key, "-CAcreateserial", "-days", "3", "-extfile", extensions, "-out", cert);
      return { cert, key: own };
    },
  };
}
