// From a disk (file://) a browser starts no worker, and the search needs one: a hidden frame does the same work
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.early = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = `<script>
        var importScripts = () => {}; // languages but English
        addEventListener("message", event => { event.source === parent || event.stopImmediatePropagation(); });
        postMessage = data => parent.postMessage({ fromWorker: data }, "*");
      </script><script src="${url}"></script>`;
      addEventListener("message", ({ data, source }) => {
        if (source !== this.frame.contentWindow || !data || !("fromWorker" in data)) return;
        const event = new MessageEvent("message", { data: data.fromWorker });
        this.dispatchEvent(event);
        this.onmessage?.(event);
      });
      this.frame.onload = () => {
        this.ready = true;
        this.early.splice(0).forEach(data => this.postMessage(data));
      };
      document.body.append(this.frame);
    }
    postMessage(data) {
      if (!this.ready) this.early.push(data);
      else Window.prototype.postMessage?.call(this.frame.contentWindow, data, "*") ?? this.frame.contentWindow.postMessage(data, "*");
    }
    terminate() {
      this.frame.remove();
    }
  };
}
