//! SIGBUS: a page of a mapped file that the disk cannot give, or that somebody has cut off. Reading a map has no
//! other way to fail, and the plain signal would end the process without a word.
//!
//! The handler says which file it was and exits as after any failed disk. It runs in the middle of anything, so it
//! only writes bytes that were laid out before, and leaves.

#![expect(unsafe_code, reason = "signal handlers have no safe wrapper")]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Exit code of a node whose disk failed (EX_IOERR), as in `cli`.
const EXIT_IO: i32 = 74;

/// The message for the file mapped last, and how many maps live.
static MESSAGE: AtomicPtr<Vec<u8>> = AtomicPtr::new(std::ptr::null_mut());
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Held as long as a map.
pub(super) struct Watched;

impl Watched {
    /// From now on the signal is told with this path. Cores that recover at the same time overwrite each other's:
    /// the text then says that it may have been another file.
    pub(super) fn begin(path: &Path) -> Watched {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(install);
        let others = ALIVE.fetch_add(1, Ordering::SeqCst) > 0;
        let mut text = b"error: the disk cannot give a page of ".to_vec();
        text.extend_from_slice(path.as_os_str().as_bytes());
        if others {
            text.extend_from_slice(b" (or of another log read at the same time)");
        }
        text.extend_from_slice(b"\nhint: check the kernel log and the disk; nothing was changed\n");
        // Leaked: the handler may be reading the last one. A log is mapped once per start and segment.
        MESSAGE.store(Box::into_raw(Box::new(text)), Ordering::SeqCst);
        Watched
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

fn install() {
    // SAFETY: the struct is plain data and filled before use; the handler makes only async-signal-safe calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus as *const () as usize;
        action.sa_flags = libc::SA_RESETHAND;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_bus(_: i32) {
    let text = MESSAGE.load(Ordering::SeqCst);
    if ALIVE.load(Ordering::SeqCst) > 0 && !text.is_null() {
        // SAFETY: the pointer came from Box::into_raw and is never freed; write and _exit are async-signal-safe.
        unsafe {
            let text: &Vec<u8> = &*text;
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(EXIT_IO);
        }
    }
    // No map of ours: the default action, which SA_RESETHAND has put back, ends the process when this returns.
}
