//! The program inside the image `wharf/hello`, which dockerd carries so that the first run needs no registry.

use std::io::Write;

const TEXT: &str = "
Hello from Wharf!
This message shows that your installation works.

What just happened:
 1. The docker client asked the Wharf daemon to run the image wharf/hello.
 2. The daemon found the image inside itself, unpacked it and made a container of it.
 3. A shim started this program in its own namespaces.
 4. The daemon streamed its output to the client, which sent it to your terminal.

To go on, import a root file system and look around in it:
 $ docker import rootfs.tar mybase
 $ docker run -it mybase sh
";

fn main() {
    if std::io::stdout().write_all(TEXT.as_bytes()).is_err() {
        std::process::exit(1);
    }
}
