/** A model of the chat, as `llf_widgets/chat/models.py` writes it. */
export interface ChatModel {
  name: string;
  about: string;
  phase: 'stopped' | 'starting' | 'ready' | 'failed';
  progress: string;
  reason: string;
  memory: number;
  engine: string;
  /** Whether it stands for the newest weights of a run. */
  run: boolean;
  live: boolean;
  tools: boolean;
  /** Whether it is known to read no pictures. */
  blind: boolean;
  thinks: boolean;
}

/** A token of a reply: text, log-probability, and the most likely tokens in its place with theirs. */
export type ReplyToken = [string, number, [string, number][]];

/** What stands below a reply, with what can be done. */
export interface ReplyProblem {
  message: string;
  fixes: { action: string; label: string }[];
}

/** A reply, as `llf_widgets/chat/replies.py` writes it. */
export interface ChatReply {
  id: string;
  model: string;
  /** Number of updates so far: an update that does not follow the last one means that some were lost. */
  sequence: number;
  state: 'waiting' | 'answering' | 'done' | 'failed';
  text: string;
  thinking: string;
  calls: {
    id: string;
    name: string;
    arguments: string;
    result: string | null;
  }[];
  tokens: ReplyToken[];
  footer: string;
  error: ReplyProblem | null;
  /** What the user decides before the model may go on. */
  question: ReplyProblem | null;
  note: string;
  version: [number, number];
  /** The text is a correction; empty if the reply was kept as it is. */
  kept: { kind: string; label: string; text: string }[];
}

/** A question with the replies of the models. */
export interface ChatTurn {
  id: string;
  text: string;
  /** Keys by which the kernel sends them. */
  pictures: string[];
  version: [number, number];
  replies: ChatReply[];
}

/** New text of a reply. */
export interface ReplyUpdate {
  id: string;
  sequence: number;
  state: ChatReply['state'];
  text: string;
  thinking: string;
  tokens: ReplyToken[];
}

export interface ChatSettings {
  system: string;
  temperature: string;
  top_p: string;
  max_tokens: string;
  seed: string;
  probabilities: boolean;
  thinking: string;
}

export interface ChatErrors {
  [field: string]: string;
}

/** A picture in a list; the name is for screen readers. */
export interface ShownPicture {
  key: string;
  name: string;
}

/** A picture of the conversation, or what the kernel says about an added one. */
export interface PictureMessage {
  key: string;
  url?: string;
  problem?: string;
}

export type Send = (content: object) => void;
