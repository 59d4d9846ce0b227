// Deliberate defects. The simulator's tests switch one on to show that the checkers see it; nothing else sets any.

#pragma once

namespace mangrove {

struct PlantedBugs {
  bool skip_one_invalidation = false;    // A responsible node forgets the last sharer of an invalidation.
  bool acknowledge_before_sync = false;  // A core holder answers a store before it is durable.
  bool drop_frame_at_send = false;       // An owner forgets the frame when it sends it, not when the transfer is done.
  bool drop_frame_at_move = false;       // The same, only where it evicts the page to another node.
  bool move_after_refusal = false;       // An owner that kept a page from being moved gives it away when asked again.
  bool forget_incarnation = false;       // A responsible node keeps an incarnation's copies when it is gone.
  bool activate_before_acks = false;     // A write grant counts before every invalidation is acknowledged.
  bool accept_stale_grant = false;       // A requester installs a grant that answers no outstanding request.
  bool skip_completion = false;          // A page is opened from disk without completing it on every holder.
  bool skip_seal = false;                // Late stores of a lost owner are taken.
  bool flush_one_holder = false;         // A flush is acknowledged by the first core holder.
  bool acks_across_views = false;        // A flush counts what core holders acknowledged in an earlier view.
  bool old_configuration = false;        // A core holder takes a store of another configuration than the extent's.
  bool keep_rights_on_forward = false;   // An owner keeps its write right when it sends a read copy.
  bool follow_right_unchecked = false;   // A directory page behind a right link is taken for the one that has the key.
  bool serve_after_hand_over = false;    // A responsible node goes on serving a segment that it has handed over.
  bool step_unlike_copies = false;       // Neighbouring copies are taken to be of one version without a look.
  bool mix_views = false;                // A message of another view than the receiver's is taken.
  bool no_fence = false;                 // Programs go on without a lease.
  bool keep_old_pages = false;           // A node that was expelled comes back with what it had in RAM, and says so.
  bool take_over_unasked = false;        // Who takes a segment over does not ask who holds pages of it.
  bool catch_up_without_pages = false;   // A disk that is behind takes the others' extents for all that it lacks.
  bool trust_old_disk = false;           // Who catches up keeps what it has itself, if that looks newer.
  bool store_where_they_are = false;  // While pages move, they are stored where they are kept, not where they will be.
  bool weights_too_soon = false;      // While pages move, they are looked for as if they had.
  bool appoint_unchecked = false;     // Who appoints does not look again under the leaf's lock.
  bool commit_before_flush = false;   // A transaction is acknowledged before its log record is durable.
  bool apply_before_flush = false;    // A transaction's writes are in their pages before its log record is durable.
  bool skip_replay = false;           // Logs of transactions are not replayed.
  bool forget_lost_names = false;     // A lost page of the logs' names is taken to name none.
  bool write_without_quorum = false;  // In regions that are read without a lease, rights to store stay as well.
  bool tell_nobody = false;  // A page that went back to an older version is given to others before its writers know.
  bool leave_before_fence = false;  // A node that stops says that it leaves while programs still use what is there.
  bool lock_unasked = false;        // A lock of a file is given before all nodes have said which ones they hold.
  bool forget_own_locks = false;    // A node makes a bucket of locks anew without its own.
  bool leave_undropped = false;     // A page leaves while the kernel keeps what it was told by it.
  bool tell_of_before = false;      // The kernel may keep what was looked for before the page had left.
  bool tell_beyond_lease = false;   // The kernel may keep it for longer than this node has a lease for sure.
  bool keep_old_bytes = false;      // Attributes are told though the kernel may have bytes from before the last change.
  bool replay_ignores_sequences = false;  // Replay applies every record to its pages, whatever they have.
};

inline constexpr PlantedBugs kNoPlantedBugs;

}  // namespace mangrove
