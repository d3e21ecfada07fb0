// A file of the reader's computer, sent to the kernel piece by piece.

/** @import { Model } from '../shared/model' */

const PIECE = 1 << 20; // bytes; a Jupyter server takes 10 MB a message
export const UPLOADED =
  '.json,.jsonl,.csv,.tsv,.txt,.parquet,.arrow,.gz,.bz2,.xz,.zst';

/**
 * Sends a file; the kernel answers each piece before the next one is sent. Ends when the kernel has all of it or took none.
 * @param {Model} model of the widget whose kernel side takes the messages
 * @param {string} key the field that the file is for
 * @param {File} file
 * @param {(text: string) => void} tell how far it is
 */
export async function upload(model, key, file, tell) {
  const id = Math.random().toString(36).slice(2);
  let offset = 0;
  for (;;) {
    tell(
      file.size > PIECE
        ? `${Math.floor((100 * offset) / file.size)} %`
        : 'Uploading…'
    );
    const piece = await file.slice(offset, offset + PIECE).arrayBuffer();
    const answered = answer(model, id);
    model.send(
      { type: 'upload', id, key, name: file.name, total: file.size, offset },
      undefined,
      [piece]
    );
    const { received, done } = await answered;
    if (done) {
      return;
    }
    offset = received;
  }
}

/** @param {Model} model @param {string} id @returns {Promise<{ received: number, done: boolean }>} */
function answer(model, id) {
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
