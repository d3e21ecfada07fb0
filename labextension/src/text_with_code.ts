/** Returns a sentence as nodes, with the parts in backticks as code. A text is never parsed as HTML. */
export function textWithCode(text: string): Node[] {
  return text.split('`').map((part, index) => {
    if (index % 2 === 0) {
      return document.createTextNode(part);
    }
    const code = document.createElement('code');
    code.textContent = part;
    return code;
  });
}
