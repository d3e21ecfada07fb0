/** How a data set is read; see `llf_core.data.inspect.inspection.readings`. */
export type Reading = UnreadSet & (ReadColumns | ReadingError);

interface UnreadSet {
  dataset: string;
  /** Its columns, as far as they are known. */
  names: string[];
  /** Whether `dataset_info.json` describes it. */
  entry: boolean;
}

interface ReadColumns {
  error?: undefined;
  format: string;
  /** The column of each role. */
  columns: Record<string, string>;
  /** Fraction of the first rows that match. */
  fits: number;
  reason: string;
}

interface ReadingError {
  error: string;
}

/** How the data sets are read. */
export interface Readings {
  readings: Reading[];
  /** The roles of each format. */
  roles: Record<string, string[]>;
}

/** Counts of a data set; see `llf_core.data.report.SetCounts`. */
export interface SetCounts {
  dataset: string;
  records: number;
  examples: number;
  tokens: number;
  trained_tokens: number;
  cut: number;
  dropped: number;
  reading: string;
}

/** See `llf_core.data.inspect.inspection.Inspection.overview`. */
export interface Overview {
  examples: number;
  held_out: number;
  sets: SetCounts[];
  /** A warning about duplicates. */
  copies: string | null;
  template: string;
  template_warnings: string[];
  template_notes: string[];
  rename_fields: Record<string, string>;
  /** The suggested name of each field that the template does not render. */
  renames: Record<string, string>;
  streamed: number;
  seconds: number;
  cached: boolean;
  /** A fraction; 0 where nothing can be packed. */
  packing_fill: number;
  cutoff: number;
}

/** What another cutoff would cost; see `llf_core.data.inspect.notable_records.cost`. */
export interface CutoffCost {
  cutoff: number;
  cut: number;
  lost: number;
  lost_answers: number;
  rows: number;
  seconds: number | null;
  /** Bytes. */
  memory: number | null;
}

/** See `llf_core.data.inspect.inspection.Inspection.lengths`. */
export interface Lengths {
  edges: number[];
  counts: number[];
  median: number;
  cutoff: number;
  longer: number;
  /** None for pairs. */
  cutoffs: CutoffCost[];
  /** Tokens per second. */
  speed: number | null;
}

/** A record, or what a search found. */
export interface RecordRow {
  dataset: string;
  where: string;
  /** Its first example. */
  number: number | null;
  /** Missing in what a search found. */
  kind?: string;
  reason: string;
}

/** A page of notable records. */
export interface NotablePage {
  kind: string;
  offset: number;
  query: string;
  rows: RecordRow[];
  total: number;
  /** Number of records of each kind. */
  kinds: Record<string, number>;
}

/** A page of what a search found. */
export interface SearchPage {
  kind: 'search';
  offset: number;
  query: string;
  rows: RecordRow[];
  /** Where the next page starts. */
  next: number | null;
}

export type RecordPage = NotablePage | SearchPage;

/** Text, id, whether it is in the loss, whether it is special, and of images, videos and audio the number of tokens. */
export type ShownToken = [string, number, TokenState, boolean, number?];

export type TokenState = 'prompt' | 'trained' | 'cut';

/** See `llf_core.data.inspect.explain_example.ShownTurn`. */
export interface ShownTurn {
  role: string;
  tokens: ShownToken[];
}

/** Turns and counts of an example; of a pair those of one response. */
export interface ExampleSide {
  turns: ShownTurn[];
  tokens: number;
  prompt: number;
  trained: number;
  cut: number;
}

/** See `llf_core.data.inspect.inspection.Inspection.example`. */
export type Example = ExampleSide & {
  number: number;
  dataset: string;
  where: string;
  held_out: boolean;
  rejected?: ExampleSide;
} & (PackedPlace | { row?: undefined });

/** The packed row of an example, and the tokens before it there. */
interface PackedPlace {
  row: number;
  offset: number;
}

/** A page of packed rows; see `llf_core.data.inspect.inspection.Inspection.rows`. */
export interface PackedRows {
  offset: number;
  /** Whether the least full rows come first. */
  least: boolean;
  total: number;
  /** Tokens of a row. */
  capacity: number;
  rows: {
    row: number;
    filled: number;
    /** Number and label of each example, and its tokens out of and in the loss. */
    examples: [number, string, number, number][];
  }[];
}

/** New values of the config by key; null for the default. The data is prepared again. */
export type Change = (changes: Record<string, unknown>) => void;

/** What a reader asks of the kernel. */
export interface Actions {
  /** Number of the last example. */
  last: number;
  page(kind: string, offset: number): void;
  search(query: string, start: number): void;
  example(number: number): void;
  rows(offset: number, least: boolean): void;
  change: Change;
}
