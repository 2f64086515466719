import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

const WORTH_BYTES = 1024;

/** Puts `.br` and `.gz` beside every text file of the build: the gateway sends them as they are. */
export function compress(): Plugin {
  return {
    name: "compress",
    apply: "build",
    enforce: "post",
    generateBundle(_, bundle) {
      for (const [name, file] of Object.entries(bundle)) {
        const text = file.type === "chunk" ? file.code : file.source;
        const bytes = Buffer.from(text);
        if (!/\.(js|css|svg|html)$/.test(name) || bytes.length < WORTH_BYTES) continue;
        const params = { [constants.BROTLI_PARAM_QUALITY]: 9 };
        const packed = { br: brotliCompressSync(bytes, { params }), gz: gzipSync(bytes) };
        for (const [ending, source] of Object.entries(packed)) {
          this.emitFile({ type: "asset", fileName: `${name}.${ending}`, source });
        }
      }
    },
  };
}
