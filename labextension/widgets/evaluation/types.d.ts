/** Sends a message to the kernel. */
export type Send = (content: object) => void;

/** A model: a column of the table. */
export interface Column {
  name: string;
  label: string;
}

/** A row of the table; see `llf_widgets.evaluation.tables.ResultTables.metrics`. */
export interface MetricRow {
  /** The data or the task; empty if there is only one. */
  group: string;
  name: string;
  label: string;
  unit: string;
  better: 'higher' | 'lower';
  values: { text: string; interval: string }[];
  differences: { verdict: string; sentence: string }[];
  sources: { name: string; values: string[] }[];
  /** Whether it is the win rate by a judge, by which examples are not sorted. */
  judge?: boolean;
}

/** An example; see `ResultTables.examples`. */
export interface ExampleRow {
  source: string;
  index: number;
  prompt: string;
  reference: string | null;
  vote: string | null;
  models: {
    answer: string | null;
    score: string;
    verdicts: { text: string; replies: string }[];
  }[];
}

export interface ExamplePage {
  /** Place among the data and tasks. */
  group: number;
  /** Whether the models have generated answers. */
  answered: boolean;
  metric: string;
  order: string;
  offset: number;
  total: number;
  rows: ExampleRow[];
}

/** The tokens of an answer with their losses in nats. */
export interface TokenLosses {
  tokens: string[];
  losses: number[];
}
