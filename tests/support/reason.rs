//! Why a test fails, for whoever says more about it afterwards.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static REASON: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on the reason of a panic is kept in its thread.
pub fn keep() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            REASON.set(info.to_string());
            before(info);
        }));
    });
}

/// The reason of this thread's last panic.
pub fn kept() -> String {
    REASON.with_borrow(String::clone)
}
