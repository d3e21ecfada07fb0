/** A widget's model, as far as the views use it: anywidget's, and what ipywidgets has beneath it. */
export interface Model {
  get(name: string): any;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: object, callbacks?: undefined, buffers?: ArrayBuffer[]): void;
  on(event: string, act: (...values: any[]) => void): void;
  off(event: string, act: (...values: any[]) => void): void;
  /** False once the kernel was restarted or shut down. */
  comm_live?: boolean;
  widget_manager: { get_model(id: string): Promise<any> };
}

/** What anywidget gives a view. */
export interface Context {
  model: Model;
  el: HTMLElement;
}
