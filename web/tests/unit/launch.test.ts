import { describe, expect, it } from "vitest";
import { LAUNCH_FIELDS } from "../../src/api/launchFields";
import { kindOf } from "../../src/components/OptionsForm";
import { engineOptions, launchBody, launchCommand } from "../../src/lib/launch";
import { nextStep, words } from "../../src/lib/nextStep";
import { launchPath, runningPath } from "../../src/lib/paths";

describe("a launch", () => {
  const query = new URLSearchParams(
    "quantization=Q4_K_M&context_length=4096&n_threads=2&model_uid=",
  );

  it("is what stands in the page's address; what is empty is left open", () => {
    expect(launchBody("mixtral-v0.1", query)).toEqual({
      model_name: "mixtral-v0.1",
      quantization: "Q4_K_M",
      context_length: 4096,
      n_threads: "2",
    });
    expect(engineOptions(query)).toEqual({ n_threads: "2" });
  });

  it("has context and slots in fields of their own, by the names that options have", () => {
    const shared = new URLSearchParams("n_ctx=512&n_parallel=8&n_batch=64");
    expect(launchBody("m", shared)).toMatchObject({ n_ctx: 512, n_parallel: 8 });
    expect(engineOptions(shared)).toEqual({ n_batch: "64" });
  });

  it("says when what fails is started again, apart from the engine's options", () => {
    const policy = new URLSearchParams("restart=never&restart_tries=0&silence_seconds=2.5");
    const body = launchBody("m", policy);
    expect(body).toMatchObject({ restart: "never", restart_tries: 0, silence_seconds: 2.5 });
    expect(engineOptions(policy)).toEqual({});
    expect(launchCommand(body)).toBe(
      "paddock launch --model-name m --restart never --restart-tries 0 --silence-seconds 2.5",
    );
  });

  it("has a command that does the same, quoted for a shell", () => {
    expect(launchCommand(launchBody("it's", query))).toBe(
      `paddock launch --model-name 'it'"'"'s' --quantization Q4_K_M --context-length 4096 --n-threads 2`,
    );
  });

  it("has the command line's own flags, and the keys of REST in its address", () => {
    const sized = new URLSearchParams("model_size_in_billions=7&offline=true&node=n1");
    const command = launchCommand(launchBody("m", sized));
    expect(command).toBe("paddock launch --model-name m --size-in-billions 7 --offline --node n1");
    expect(nextStep(command)?.path).toBe(`/launch/m?${sized}`);
  });

  it("leaves a flag that is off out of its command", () => {
    const body = launchBody("m", new URLSearchParams("offline=false"));
    expect(launchCommand(body)).toBe("paddock launch --model-name m");
  });

  it("takes every field of the table, and none of them as an option of the engine", () => {
    for (const { key, type } of LAUNCH_FIELDS) {
      if (key === "model_name") continue;
      const query = new URLSearchParams({ [key]: "1" });
      const values = { text: "1", number: 1, flag: true };
      expect(launchBody("m", query)).toEqual({ model_name: "m", [key]: values[type] });
      expect(engineOptions(query)).toEqual({});
    }
  });

  it("has an address that keeps the slashes of references", () => {
    expect(launchPath("hf:owner/name", { quantization: "Q2_K", node: undefined })).toBe(
      "/launch/hf%3Aowner/name?quantization=Q2_K",
    );
    expect(runningPath("a b/c")).toBe("/running/a%20b/c");
  });
});

describe("a suggested command", () => {
  it("is split as a shell would", () => {
    expect(words(`paddock run 'a b' "c d" e\\ f ''`)).toEqual([
      "paddock",
      "run",
      "a b",
      "c d",
      "e f",
      "",
    ]);
  });

  it("leads to the page where it is done", () => {
    expect(nextStep("paddock launch --model-name tiny --quantization Q2_K --n-ctx 512")).toEqual({
      kind: "launch",
      path: "/launch/tiny?quantization=Q2_K&n_ctx=512",
    });
    expect(nextStep("paddock engine install transformers")?.path).toBe(
      "/cluster?install=transformers",
    );
    expect(nextStep("paddock terminate --model-uid tiny")?.path).toBe("/running/tiny");
    expect(nextStep("paddock estimate mixtral-v0.1")?.path).toBe("/memory?model=mixtral-v0.1");
    expect(nextStep("paddock logs tiny")?.path).toBe("/running/tiny?tab=log");
    expect(nextStep("paddock pull tiny --quantization Q2_K")?.path).toBe("/downloads");
  });

  it("leads nowhere where only a terminal can do it", () => {
    expect(nextStep("huggingface-cli login")).toBeNull();
    expect(nextStep("paddock serve --port 0")).toBeNull();
  });
});

describe("an option's field", () => {
  it("follows the first type that is not null, also behind a reference", () => {
    expect(kindOf({ anyOf: [{ type: "null" }, { type: "integer", minimum: 1 }] })).toMatchObject({
      type: "integer",
      minimum: 1,
    });
    const schema = { $defs: { Cache: { type: "string", enum: ["f16", "q8_0"] } } };
    expect(kindOf({ anyOf: [{ $ref: "#/$defs/Cache" }, { type: "null" }] }, schema).enum).toEqual([
      "f16",
      "q8_0",
    ]);
  });
});
