declare module 'plotly.js-basic-dist-min' {
  export interface Figure {
    data: object[];
    layout: { [name: string]: any };
    config?: object;
  }

  const Plotly: {
    react(
      box: HTMLElement,
      data: object[],
      layout: object,
      config: object
    ): Promise<HTMLElement>;
    relayout(box: HTMLElement, changes: object): Promise<HTMLElement>;
    purge(box: HTMLElement): void;
  };
  export default Plotly;
}
