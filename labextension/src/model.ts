// Written by `python -m kitaru_nb.surfaces.frontend types` from the Python model. Don't edit it by hand.

export type ExecutionStatus = "pending" | "running" | "waiting" | "completed" | "failed" | "cancelled" | "interrupted";

export interface Owner {
  host: string;
  pid: number;
  started: number;
  nonce: string;
}

export interface Lease {
  exec_id: string;
  owner: Owner;
  epoch: number;
  expires_at: number;
}

export interface FailureInfo {
  message: string;
  exception_type: string;
  traceback: string | null;
  origin: string;
}

export interface Artifact {
  artifact_id: string;
  name: string;
  kind: string;
  serializer: string;
  python_type: string;
  media_type: string;
  digest: string;
  size: number;
  token: string | null;
  preview: Record<string, unknown>;
  names: string[];
  exec_id: string;
  producing_call: string | null;
  tags: string[];
  metadata: Record<string, unknown>;
}

export interface CallInput {
  name: string;
  token: string | null;
  preview: string;
  sources: string[];
}

export interface CheckpointAttempt {
  attempt_id: string;
  status: string;
  started_at: string | null;
  ended_at: string | null;
  failure: FailureInfo | null;
  metadata: Record<string, unknown>;
}

export interface CheckpointCall {
  call_id: string;
  name: string;
  selector: string;
  checkpoint_type: string | null;
  status: string;
  started_at: string | null;
  ended_at: string | null;
  parent: string | null;
  parent_call_ids: string[];
  after: string[];
  inputs: CallInput[];
  artifacts: Artifact[];
  attempts: CheckpointAttempt[];
  failure: FailureInfo | null;
  metadata: Record<string, unknown>;
  original_exec_id: string | null;
  original_call_id: string | null;
  code: string | null;
  partial: (Record<string, string>)[];
}

export interface Wait {
  wait_id: string;
  exec_id: string;
  name: string;
  question: string | null;
  schema: Record<string, unknown>;
  status: string;
  created_at: string;
  metadata: Record<string, unknown>;
  until: string | null;
  value: unknown;
  resolved_by: string | null;
  via: string | null;
  resolved_at: string | null;
  after: string[];
  parent: string | null;
}

export interface LogEntry {
  message: string;
  level: string;
  timestamp: string;
  source: string;
  checkpoint_name: string | null;
  call_id: string | null;
}

export interface Execution {
  exec_id: string;
  flow_name: string;
  status: ExecutionStatus;
  created_at: string;
  updated_at: string;
  ended_at: string | null;
  original_exec_id: string | null;
  deployment: string | null;
  stack: string;
  key: string | null;
  epoch: number;
  lease: Lease | null;
  inputs: Record<string, string>;
  metadata: Record<string, unknown>;
  failure: FailureInfo | null;
  checkpoints: CheckpointCall[];
  waits: Wait[];
  artifacts: Artifact[];
  result: Artifact | null;
}

export interface Edge {
  source: string;
  target: string;
  kind: "data" | "order" | "nested";
}

export interface Node {
  node_id: string;
  kind: "input" | "checkpoint" | "wait";
  name: string;
  selector: string;
  type: string | null;
  status: string;
  started_at: string | null;
  ended_at: string | null;
  duration: number | null;
  tokens: number;
  cost: number;
  parent: string | null;
  failure: string | null;
}

export interface ExecutionGraph {
  exec_id: string;
  status: ExecutionStatus;
  seq: number;
  nodes: Node[];
  edges: Edge[];
}

export interface CallDiff {
  selector: string;
  change: "same" | "output" | "status" | "only_left" | "only_right";
  why: string;
  left: string | null;
  right: string | null;
  seconds: [number | null, number | null];
  tokens: [number, number];
}

export interface ExecutionDiff {
  left: string;
  right: string;
  calls: CallDiff[];
  waits: ([string, string, string])[];
  result: [string, string];
}

export interface ReplayPreview {
  original_exec_id: string;
  runs: string[];
  enters: string[];
  reused: string[];
  overridden: string[];
  asks: string[];
  tokens_saved: number;
  cost_saved: number;
  seconds_saved: number;
  arguments: string[];
}

export interface Started {
  exec_id: string;
  worker: string | null;
  by_notebook: boolean;
  elsewhere: boolean;
}

export interface Deployment {
  flow: string;
  version: number;
  digest: string;
  size: number;
  parameters: Record<string, unknown>;
  created_at: string;
  created_by: string;
  kind: string;
  stack: string;
  python: string;
  commit_sha: string | null;
  commit_dirty: boolean;
  tags: string[];
}

export interface StackView {
  name: string;
  runner: string;
  journal: string | null;
  store: string | null;
  inline_max_bytes: number | null;
  executor: string | null;
  options: Record<string, unknown>;
  environment: string[];
  secrets: Record<string, string>;
  built_in: boolean;
  used: boolean;
}
