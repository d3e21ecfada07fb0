/** A receipt as `llf_widgets/export_view/widget.py` writes it. */
export interface Receipt {
  passed: boolean;
  summary: string;
  checks: { cells: string[]; passed: boolean; detail: string }[];
  heads: string[];
  rows: { cells: string[] }[];
  bars: Bar[];
}

/** What the chart draws of a quantization; null where it was not measured. */
export interface Bar {
  name: string;
  bytes: number | null;
  kl: number | null;
}
