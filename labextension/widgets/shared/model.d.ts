/** The part of a widget's model that the views use: that of anywidget, and of ipywidgets below it. */
export interface Model {
  get(name: string): any;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: object, callbacks?: undefined, buffers?: ArrayBuffer[]): void;
  on(event: string, act: (...values: any[]) => void): void;
  off(event: string, act: (...values: any[]) => void): void;
  widget_manager: { get_model(id: string): Promise<any> };
}

/** What anywidget passes to a view's `render`. */
export interface Context {
  model: Model;
  el: HTMLElement;
}
