// Written by `make docs` from registry/launch_fields.py; do not edit.

/** A field of a launch: its key in REST's body, and its flags in a command. */
export interface LaunchField {
  key: string;
  type: "text" | "number" | "flag";
  flags: readonly string[];
  min?: number;
  max?: number;
}

export const LAUNCH_FIELDS: readonly LaunchField[] = [
  { key: "model_name", type: "text", flags: ["-n", "--model-name"] },
  { key: "model_type", type: "text", flags: ["-t", "--model-type"] },
  { key: "model_engine", type: "text", flags: ["-en", "--model-engine"] },
  { key: "model_uid", type: "text", flags: ["-u", "--model-uid"] },
  { key: "model_size_in_billions", type: "text", flags: ["-s", "--size-in-billions"] },
  { key: "model_format", type: "text", flags: ["-f", "--model-format"] },
  { key: "quantization", type: "text", flags: ["-q", "--quantization"] },
  { key: "replica", type: "number", flags: ["-r", "--replica"], min: 1, max: 64 },
  { key: "context_length", type: "number", flags: ["-c", "--context-length"], min: 1 },
  { key: "model_path", type: "text", flags: ["-mp", "--model-path"] },
  { key: "download_hub", type: "text", flags: ["--download-hub"] },
  { key: "offline", type: "flag", flags: ["--offline"] },
  { key: "worker_ip", type: "text", flags: ["--worker-ip"] },
  { key: "node", type: "text", flags: ["--node"] },
  { key: "n_gpu", type: "text", flags: ["--n-gpu"] },
  { key: "gpu_idx", type: "text", flags: ["--gpu-idx"] },
  { key: "multimodal_projector", type: "text", flags: ["--multimodal-projector"] },
  { key: "chat_template", type: "text", flags: ["--chat-template"] },
  { key: "trust", type: "text", flags: ["--trust"] },
  { key: "fit", type: "flag", flags: ["--fit"] },
  { key: "force", type: "flag", flags: ["--force"] },
  { key: "memory_limit", type: "text", flags: ["--memory-limit"] },
  { key: "assume_gpu", type: "text", flags: ["--assume-gpu"] },
  { key: "restart", type: "text", flags: ["--restart"] },
  { key: "restart_tries", type: "number", flags: ["--restart-tries"], min: 0 },
  { key: "silence_seconds", type: "number", flags: ["--silence-seconds"], max: 1000000000 },
];
