// Uploads a file to the kernel in pieces.

import { uniqueId } from '../shared/dom.js';

/** @import { Model } from '../shared/model' */

const PIECE_BYTES = 1 << 20; // bytes; a Jupyter server accepts messages of up to 10 MB
export const ACCEPTED_TYPES =
  '.json,.jsonl,.csv,.tsv,.txt,.parquet,.arrow,.gz,.bz2,.xz,.zst';

/**
 * Sends a file in pieces, each after the kernel has answered the one before, so that a large file does not fill the
 * connection. Resolves when the kernel has the whole file or has refused it.
 * @param {Model} model the widget whose kernel side receives the file
 * @param {string} key field of the form
 * @param {File} file
 * @param {(text: string) => void} onProgress called with a percentage
 * @throws {DOMException} if the file cannot be read, for example because it has changed since it was chosen
 */
export async function upload(model, key, file, onProgress) {
  const id = uniqueId('upload');
  let offset = 0;
  for (;;) {
    onProgress(
      file.size > PIECE_BYTES
        ? `${Math.floor((100 * offset) / file.size)} %`
        : 'Uploading…'
    );
    const piece = await file.slice(offset, offset + PIECE_BYTES).arrayBuffer();
    const reply = waitForReply(model, id);
    model.send(
      { type: 'upload', id, key, name: file.name, total: file.size, offset },
      undefined,
      [piece]
    );
    const { received, done } = await reply;
    if (done) {
      return;
    }
    offset = received;
  }
}

/** Waits for the kernel's reply to a piece. @param {Model} model @param {string} id @returns {Promise<{ received: number, done: boolean }>} */
function waitForReply(model, id) {
  return new Promise(resolve => {
    const end = (/** @type {any} */ content) => {
      model.off('msg:custom', onMessage);
      model.off('comm_live_update', lost);
      resolve(content);
    };
    const onMessage = (/** @type {any} */ content) =>
      content.type === 'upload' && content.id === id && end(content);
    const lost = () => end({ received: 0, done: true });
    model.on('msg:custom', onMessage);
    model.on('comm_live_update', lost);
  });
}
