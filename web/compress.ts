import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

const WORTH_BYTES = 1024;

/** Puts `.br` and `.gz` beside every text file of the build: the gateway sends them as they are. */
export function compress(): Plugin {
  return {
    name: "compress",
    apply: "build",
    // From the disk: until it is written, other plugins still put the chunks' own names into them.
    async writeBundle({ dir = "dist" }, bundle) {
      for (const name of Object.keys(bundle)) {
        const bytes = await readFile(join(dir, name));
        if (!/\.(js|css|svg|html)$/.test(name) || bytes.length < WORTH_BYTES) continue;
        const params = { [constants.BROTLI_PARAM_QUALITY]: 9 };
        await writeFile(join(dir, `${name}.br`), brotliCompressSync(bytes, { params }));
        await writeFile(join(dir, `${name}.gz`), gzipSync(bytes));
      }
    },
  };
}
