"""What a sentence tells a person to do is done by a test, which ends well.

A sentence is found where the code makes an error. What it says to do is in backticks, or begins
after a colon or semicolon. `FOLLOWED` has an entry for each: the function that makes it, and below
it the tests that get the sentence, do what it says and see the command succeed. A function that
says several things has several entries, in their order. Who writes a sentence writes such a test.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product

from conftest import TEMPLATE, UNBAKED

ROOMS = {
    **{
        name: TEMPLATE / name
        for name in ("delivery", "reporting", "tuning", "workspace", "hooks", "infra/commands")
    },
    **{name: UNBAKED / "src" / name for name in ("classifier", "curation")},
}
ERROR = re.compile(r"(.*\.)?(\w*Error|sys\.exit)")
# Words with which a clause begins that says why or what is known, and nothing to do.
REASONS = set(
    "DVC Kubernetes a an and at each it its known kubectl more no nothing one pip probabilities "
    "report that the there they this what".split()
)

FOLLOWED = """
delivery.checks.changes.commit_of
    test_check::test_a_base_that_is_not_here_is_named_and_another_is_given
delivery.commands.captured.run
    test_captured::test_what_was_kept_meanwhile_or_comes_whole_is_fetched
delivery.commands.captured.run
    test_captured::test_another_context_or_the_components_help
delivery.commands.captured.pictures
    test_captured::test_what_was_kept_meanwhile_or_comes_whole_is_fetched
delivery.commands.comment.run
    test_comment::test_a_job_that_may_not_comment_is_told_what_it_needs
delivery.commands.drift.run
    test_drift::test_a_place_and_a_component_are_what_it_needs
delivery.commands.drift.run
    test_drift::test_a_place_and_a_component_are_what_it_needs
delivery.commands.drift.number
    test_drift::test_another_address_helps
delivery.commands.drift.get
    test_drift::test_another_address_helps
delivery.commands.data_pull.run
    test_data_store::test_what_was_never_pushed_is_had_after_a_push
delivery.commands.data_push.run
    test_order::test_images_that_dvc_does_not_know_yet
delivery.commands.data_push.run
    test_order::test_a_store_in_a_folder_that_cannot_be_made
delivery.oci.build.find_builder
    test_build_training_image::test_what_a_refused_build_is_told_to_do_works
delivery.oci.build.check_name
    test_build_training_image::test_what_a_refused_build_is_told_to_do_works
delivery.oci.build._digest
    test_build_training_image::test_what_a_refused_build_is_told_to_do_works
delivery.cluster.git_server.start
    test_cluster::test_an_address_that_is_not_this_machine_s
delivery.cluster.installation.namespace_of
    test_cluster::test_an_overlay_without_a_namespace
delivery.cluster.installation.prepare_environments
    test_cluster::test_a_cluster_that_serves_the_project_already_is_left_alone
delivery.cluster.kind_cluster.check_docker
    test_cluster::test_a_docker_without_its_server
delivery.cluster.programs.check_programs
    test_cluster::test_a_missing_program_is_a_sentence_with_the_cure
delivery.cluster.programs.ask
    test_cluster::test_what_was_interrupted_anywhere_goes_on
delivery.cluster.programs.tell
    test_cluster::test_what_was_interrupted_anywhere_goes_on
delivery.cluster.remote.public_address
    test_cluster::test_a_remote_that_asks_for_a_key_gets_an_address_that_does_not
delivery.commands.login.run
    test_login::test_a_folder_that_others_do_not_have_is_nowhere_to_push_to
delivery.commands.login.answer
    test_login::test_a_job_without_its_role_or_program_is_told_so
delivery.commands.pin.pin_chart
    test_pin::test_what_a_refusal_says_helps
delivery.commands.pin.unmoved
    test_pin::test_what_a_refusal_says_helps
delivery.commands.pin.image_digest
    test_pin::test_what_a_refusal_says_helps
delivery.commands.pin.chart_digest
    test_pin::test_what_a_refusal_says_helps
delivery.commands.pin.chart_index
    test_pin::test_what_a_refusal_says_helps
delivery.commands.pin.chart_index
    test_pin::test_what_a_refusal_says_helps
delivery.commands.pin.chart_index
    test_pin::test_what_a_refusal_says_helps
delivery.commands.pipeline.reproduce
    test_order::test_a_pipeline_without_its_images
delivery.commands.preview.Preview.settle
    test_preview::test_fault_is_told_and_not_served_and_a_revert_heals
delivery.commands.promote.doubtful
    test_health::test_where_nobody_tells_the_approver_judges_unless_the_project_wants_to_know
delivery.commands.promote.run
    test_promotion::test_nothing_in_staging
delivery.commands.promote.run
    test_promotion::test_a_promotion_does_not_go_back
delivery.commands.protect.run
    test_protect::test_a_check_changes_nothing_and_says_what_is_missing
    test_protect::test_owners_that_github_does_not_know_protect_nothing
delivery.commands.protect.unknown_owners
    test_protect::test_owners_that_were_not_pushed_come_first
delivery.commands.release.releasable_commit
    test_order::test_a_conflict_in_the_working_tree
delivery.commands.release.releasable_commit
    test_order::test_a_forgotten_push
    test_order::test_a_forgotten_pull
    test_order::test_commits_on_both_sides
    test_order::test_a_release_from_another_branch
delivery.commands.release.push_data
    test_order::test_a_store_that_does_not_answer_is_corrected
delivery.commands.release.run
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.commands.reproduce.find_release
    test_reproduce_release::test_a_version_that_was_released_is_made
delivery.commands.reproduce.check_commit
    test_reproduce_release::test_a_commit_that_was_fetched_is_found
delivery.commands.run_pipeline.run_pipeline
    test_pipeline_job::test_data_that_were_never_pushed_are_asked_for
delivery.commands.run_pipeline.run_pipeline
    test_pipeline_job::test_what_finished_stages_made_is_kept_when_a_later_one_fails
delivery.commands.run_pipeline.data_store
    test_pipeline_job::test_without_a_data_store_nothing_is_trained
delivery.manifests.answers.apart
    test_status::test_an_answer_without_an_end_is_given_up
delivery.commands.promote.check_served
    test_cluster_status::test_what_a_refused_promotion_says_helps
delivery.commands.propose.push
    test_login::test_another_training_of_the_same_commit_is_proposed_once_the_first_is_closed
delivery.commands.propose.run
    test_login::test_a_commit_that_main_does_not_have_is_merged_first
delivery.commands.status.run
    test_status::test_a_disagreement_fails
delivery.commands.status._pair
    test_status::test_a_bad_address_is_refused
delivery.commands.train_on_cluster.run
    test_training_run::test_a_number_of_machines_that_nobody_has
delivery.commands.train_on_cluster.revision
    test_training_run::test_a_reference_that_can_move_or_names_nothing
delivery.commands.train_on_cluster.revision
    test_training_run::test_an_image_that_does_not_say_what_it_was_built_from
delivery.commands.tune_serving.run
    test_tune_serving::test_what_cannot_be_tried_is_refused_and_the_cures_work
delivery.commands.tune_serving.run
    test_tune_serving::test_settings_are_tried_on_the_real_server
delivery.commands.tune_serving.exported
    test_tune_serving::test_what_cannot_be_tried_is_refused_and_the_cures_work
delivery.commands.update.check_ready
    test_update::test_an_old_git_is_a_sentence
delivery.commands.update.new_branch
    test_update::test_either_way_out_of_a_branch_that_is_there_works
delivery.commands.update.render_old
    test_update::test_an_answer_that_is_missing_is_named
delivery.commands.update.merge_renderings
    test_update::test_an_answer_that_was_added_and_an_origin_that_was_committed_are_taken
delivery.commands.verify.run
    test_signing::test_a_key_that_nobody_is_told_of_is_named_first
delivery.commands.verify.run
    test_signing::test_a_version_that_is_not_there_is_named
delivery.commands.webhook.run
    test_webhook::test_a_check_changes_nothing_and_says_what_is_missing
delivery.commands.webhook.hook_addresses
    test_webhook::test_an_address_that_is_none_is_refused
delivery.commands.webhook.kept_secret
    test_webhook::test_a_cluster_without_argo_cd_is_another_one
delivery.commands.webhook.kubectl
    test_webhook::test_without_kubectl_the_way_to_it_is_named
delivery.commands.webhook.kubectl
    test_webhook::test_a_cluster_that_does_not_answer_is_one_sentence
delivery.triton.config_text.parse
    test_tune_serving::test_what_cannot_be_tried_is_refused_and_the_cures_work
delivery.dvc.parse_lock
    test_release::test_a_lock_that_cannot_be_read_is_restored_or_made_anew
delivery.dvc.default_store
    test_order::test_no_store
delivery.dvc.refuse_replaced
    test_data_store::test_a_replaced_object_is_not_taken_and_the_cure_works
delivery.git.Repository.check_root
    test_git::test_a_project_in_a_folder_of_another_repository_is_told_at_once
delivery.git.Repository.head
    test_order::test_a_folder_that_git_knows_nothing_of
delivery.git.Repository.fetch
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.git.Repository._fetch_beside
    test_git::test_a_branch_that_was_pushed_again_is_previewed
delivery.git.Repository._check_rewritten
    test_git::test_a_main_that_lost_a_release_is_refused_and_put_back
    test_git::test_a_rewritten_main_is_forgotten_where_all_agree
delivery.git.Repository._check_remote
    test_order::test_a_folder_that_git_knows_nothing_of
delivery.git.Repository.check_clean
    test_git::test_what_the_gate_reads_is_what_is_committed
delivery.git.Repository.check_clean
    test_build_training_image::test_what_a_refused_build_is_told_to_do_works
delivery.git._described
    test_git::test_a_file_of_history_that_is_lost_is_fetched_again
delivery.git.Repository.check_identity
    test_git::test_a_person_without_a_name_is_asked_for_it_before_anything_is_sent
delivery.manifests.rendering.build
    test_manifests::test_a_machine_without_kubectl_is_told_so
delivery.manifests.rendering.build
    test_manifests::test_a_kubectl_that_hangs_is_tried_again
delivery.manifests.rendering.build
    test_manifests::test_bad_manifests_are_refused_with_one_sentence
delivery.manifests.rendering.check_release
    test_manifests::test_bad_manifests_are_refused_with_one_sentence
delivery.manifests.server_pod.read_server_pod
    test_manifests::test_a_pod_that_is_put_right_is_served
delivery.manifests.server_pod.check_mount
    test_manifests::test_a_pod_that_is_put_right_is_served
delivery.manifests.snapshot.snapshot
    test_snapshot::test_a_commit_without_manifests
delivery.manifests.snapshot.read_entries
    test_snapshot::test_too_much_is_refused
delivery.manifests.snapshot.place
    test_snapshot::test_a_submodule_is_refused
delivery.manifests.snapshot.place
    test_snapshot::test_a_tree_that_leads_out_is_refused
delivery.manifests.snapshot.check_link
    test_snapshot::test_links_that_leave_are_refused
delivery.model.golden.load
    test_triton::test_more_golden_requests_than_are_read_are_told
delivery.model.golden.load
    test_triton::test_golden_requests_that_the_pipeline_writes_again_are_read
delivery.model.golden.load
    test_triton::test_golden_requests_that_the_pipeline_writes_again_are_read
delivery.model.lineage.check_code
    test_git::test_code_that_git_status_passes_over_is_named
delivery.model.lineage.check_code
    test_git::test_code_that_git_status_passes_over_is_named
delivery.model.lineage.check_code
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.model.lineage.check_committed
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.model.lineage.check_parameters
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.model.lineage.check_data
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.model.lineage.check_model
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.model.lineage.check_pipeline
    test_release::test_a_lock_that_was_left_out_is_committed
delivery.model.lineage.check_pipeline
    test_release::test_outputs_of_another_commit_are_noticed_by_dvc
delivery.model.lineage.check_inputs
    test_release::test_images_that_only_this_machine_has_are_not_released
delivery.model.pipeline_outputs.require_outputs
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.model.pipeline_outputs.read_outputs
    test_release::test_what_a_refused_release_is_told_to_do_works
delivery.model.pipeline_outputs.read_packaged
    test_corrected::test_an_image_that_is_packaged_again_is_read
delivery.model.rebuild.check_out
    test_git::test_a_filter_that_fails_is_not_believed
delivery.model.rebuild.filters
    test_git::test_a_filter_that_is_not_set_up_is_named
delivery.model.rebuild.pull_data
    test_reproduce_release::test_data_that_were_pushed_again_are_had
delivery.oci.gate.Passage._location
    test_registries::test_a_web_site_that_says_yes_to_everything_is_no_registry
delivery.oci.image.parse_manifest
    test_registries::test_a_digest_of_another_image_is_replaced_by_that_of_the_release
delivery.oci.layout.Layout.read
    test_registries::test_pushing_again_heals_a_folder
    test_registries::test_a_released_image_that_is_damaged_here_is_packaged_again
delivery.oci.layout.Layout.require
    test_registries::test_damage_in_the_local_layout_does_not_reach_a_registry
delivery.oci.layout.Layout._listed
    test_fuzz_images::test_an_empty_index_is_cured_as_the_sentence_says
delivery.oci.login._stored
    test_logins::test_a_stored_login_that_is_damaged_is_one_sentence
delivery.oci.login._asked
    test_logins::test_a_helper_that_fails_is_one_sentence_and_logging_in_without_it_helps
delivery.oci.origin.Origin.send
    test_registries::test_an_address_that_only_redirects_is_corrected
delivery.commands.compare.check
    test_compare::test_what_is_no_run_is_named_and_another_taken
delivery.commands.compare.check
    test_compare::test_what_is_no_run_is_named_and_another_taken
delivery.commands.report.bring_back
    test_report::test_a_release_from_before_there_were_pages_has_a_card
delivery.commands.report.bring_back
    test_report::test_a_page_comes_from_the_store_that_the_settings_name
delivery.commands.report.find
    test_report::test_a_version_that_was_not_released_is_named
delivery.oci.origin.Origin.refused
    test_registries::test_an_address_that_only_redirects_is_corrected
delivery.oci.origin.Origin._realm
    test_logins::test_a_realm_that_the_user_names_gets_the_password
delivery.oci.origin.find_proxy
    test_logins::test_a_proxy_that_speaks_something_else_is_named_and_another_is_taken
delivery.oci.origin.late
    test_registries::test_a_registry_that_never_ends_is_given_up
    test_registries::test_a_registry_that_drips_is_given_up
delivery.oci.registry.open_registry
    test_registries::test_a_name_that_is_no_registry_is_refused
delivery.oci.registry.parse_reference
    test_registries::test_a_reference_without_a_digest_is_refused
delivery.oci.registry.pull
    test_registries::test_a_folder_that_is_there_stays_until_it_is_removed
delivery.oci.registry._require_room
    test_registries::test_an_image_is_pulled_once_there_is_room
delivery.oci.remote.Remote.take
    test_registries::test_a_blob_that_vanishes_after_it_was_sent_is_noticed
delivery.oci.remote.Remote._run
    test_registries::test_a_missing_skopeo_is_one_sentence
delivery.oci.remote.Remote.failure
    test_registry::test_a_layer_that_the_registry_lost_is_pushed_again
delivery.oci.remote.Remote.failure
    test_registry::test_a_password_of_docker_login_is_used
delivery.oci.signature.public_key
    test_signing::test_what_a_wrong_public_key_is_told_to_do_works
delivery.oci.signature.private_key
    test_signing::test_what_a_wrong_key_is_told_to_do_works
delivery.proposals.signing.Trust.judge
    test_signing::test_a_required_signature_needs_its_key
delivery.proposals.signing.read_trust
    test_signing::test_what_a_wrong_public_key_is_told_to_do_works
delivery.proposals.signing.read_signer
    test_signing::test_a_required_signature_needs_its_key
delivery.proposals.signing.read_signer
    test_signing::test_a_key_that_nobody_is_told_of_is_named_first
delivery.proposals.signing.read_signer
    test_signing::test_what_a_wrong_key_is_told_to_do_works
delivery.proposals.signing._secret
    test_signing::test_what_a_wrong_key_is_told_to_do_works
delivery.proposals.config_map.parse_config_map
    test_foreign_text::test_a_release_file_hides_nothing_from_a_reviewer
delivery.proposals.config_map.parse_config_map
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
delivery.proposals.github.GitHub._checked
    test_protect::test_an_answer_that_is_none_is_not_believed
delivery.proposals.github.find_github
    test_protect::test_without_its_command_line_nothing_is_done
delivery.proposals.github.find_github
    test_protect::test_without_a_remote_the_way_to_one_is_named
delivery.proposals.github.find_github
    test_protect::test_a_remote_that_is_not_on_github_is_told_from_one_that_is
delivery.proposals.github.find_github
    test_protect::test_without_an_account_the_way_to_log_in_is_named
delivery.proposals.proposal.propose
    test_promotion::test_a_promotion_that_someone_else_proposed_otherwise
delivery.proposals.proposal.push_branch
    test_release::test_of_two_releases_at_once_one_wins
delivery.proposals.proposal.push_branch
    test_git::test_a_push_that_ends_well_elsewhere_is_not_believed
delivery.proposals.proposal.push_branch
    test_git::test_a_branch_in_the_way_of_a_proposal_is_named_and_renamed
delivery.proposals.proposal.open_pull_request
    test_release::test_a_pull_request_that_failed_is_opened_by_the_same_command
delivery.proposals.proposal._address
    test_release::test_only_a_pull_request_counts_as_one
delivery.proposals.release_file.read_release
    test_manifests::test_an_environment_without_a_release_is_named
delivery.proposals.release_file.read_release
    test_manifests::test_a_release_file_that_cannot_be_read_is_one_sentence
delivery.proposals.release_file.parse_release
    test_order::test_marks_of_a_conflict_that_were_committed
delivery.proposals.release_file.readable
    test_release::test_what_a_refused_release_is_told_to_do_works
    test_git::test_a_huge_release_file_is_one_sentence_and_restored
delivery.proposals.releases.check_environment
    test_status::test_a_bad_address_is_refused
delivery.proposals.releases.check_image
    test_git::test_the_image_of_a_version_never_changes
delivery.proposals.run_file.next_run
    test_training_run::test_a_run_file_that_was_put_right_or_removed_is_counted_from
delivery.proposals.template.read_origin
    test_update::test_an_origin_that_was_written_is_updated_from
delivery.triton.client.Client.call
    test_predict::test_no_server
delivery.triton.client.Client.stranger
    test_status::test_a_program_that_says_yes_to_everything_is_not_believed
delivery.triton.installation.installation
    test_triton::test_an_environment_that_was_set_up_is_found
delivery.triton.installation.installation
    test_triton::test_an_environment_that_was_set_up_is_found
delivery.triton.installation.check_glibc
    test_triton::test_old_c_library
delivery.triton.installation.check_shared_library
    test_triton::test_missing_shared_library_names_the_package
delivery.triton.proxy.Proxy.listen
    test_proxy::test_busy_port
delivery.triton.server.latest_version
    test_triton::test_missing_model
delivery.triton.server.check_version
    test_corrected::test_an_image_that_is_packaged_again_is_read
delivery.triton.server.bound
    test_triton::test_busy_port_is_named
reporting.answers.read_answers
    test_model_page::test_a_table_that_evaluate_has_not_written_is_refused
reporting.answers.read_answers
    test_model_page::test_a_table_that_evaluate_has_not_written_is_refused
reporting.model_page.read
    test_model_page::test_answers_on_another_test_split_are_refused
reporting.tracking.send
    test_tracking::test_without_its_client_the_way_to_it_is_named
reporting.tracking.send
    test_tracking::test_a_server_that_is_away_costs_no_model
workspace.machine.Machine.from_environment
    test_distributed::test_an_unknown_accelerator_is_refused
workspace.machine._count
    test_distributed::test_a_number_of_workers_that_is_none_is_refused
workspace.model_code.named_code
    test_code::test_a_pipeline_without_the_stage_is_refused
workspace.model_code._files
    test_code::test_code_that_is_not_there_is_named
workspace.pictures.refuse_links
    test_folders::test_a_folder_behind_a_link_is_refused_and_the_cure_works
workspace.pictures.open_picture
    test_pictures::test_colour_of_sixteen_bits_is_refused_and_the_cure_works
workspace.pictures.open_picture
    test_corrected::test_a_picture_that_is_saved_otherwise_is_opened
workspace.root.check_root
    test_corrected::test_a_command_works_in_the_folder_that_it_names
workspace.settings.check
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
workspace.settings._text
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
workspace.settings._text
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
workspace.settings._take
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
workspace.settings._check_values
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
hooks.pre_gen_project
    test_answers::test_a_copy_that_lost_its_links_is_refused
hooks.pre_gen_project
    test_answers::test_a_template_whose_own_images_would_take_the_place_of_a_projects_is_refused
infra.commands.cost.read_plan
    test_infra_commands::test_what_is_planned_has_a_cost
infra.commands.cost.read_plan
    test_infra_commands::test_a_plan_that_cannot_be_read_is_made_again
infra.commands.cost.instance_price
    test_infra_cost::test_an_instance_type_without_a_price_is_refused
infra.commands.cost.refuse_unknown_types
    test_infra_cost::test_a_type_that_is_named_has_its_place
infra.commands.outputs.read_settings
    test_infra_commands::test_outputs_are_written_once_a_root_is_applied
infra.commands.outputs.with_registry
    test_infra_commands::test_no_file_is_written_unless_all_can_be
infra.commands.failures.run
    test_infra_commands::test_without_terraform_there_is_a_sentence
infra.commands.roots.document
    test_infra_commands::test_a_first_apply_that_cannot_say_where_its_bucket_is_stays_local
infra.commands.roots.apply
    test_infra_commands::test_a_root_is_applied_after_bootstrap
infra.commands.roots.aws
    test_infra_commands::test_an_answer_of_aws_that_breaks_off_is_not_an_empty_one
infra.commands.roots.given
    test_infra_commands::test_settings_without_a_project_are_told
infra.commands.roots.saved_plan
    test_infra_commands::test_a_saved_plan_is_applied_as_it_is_or_nothing_is
infra.commands.comment.text
    test_infra_commands::test_a_comment_has_what_is_planned
infra.commands.quota.compare
    test_infra_cost::test_a_quota_that_is_too_small_is_told_with_the_request
infra.commands.roots.refuse_while_states_are_needed
    test_infra_commands::test_the_states_stay_while_a_root_needs_its_own
infra.commands.roots.take_argocd_down
    test_infra_commands::test_the_cluster_stays_while_argo_cd_runs_what_is_not_of_the_project
infra.commands.roots.running
    test_infra_commands::test_a_cluster_that_cannot_be_asked_stays
infra.commands.take_down.Cluster.ask
    test_take_down::test_a_cluster_that_refuses_is_told_and_continued
infra.commands.take_down.Cluster.find
    test_take_down::test_an_answer_that_breaks_off_is_not_an_empty_one
infra.commands.take_down.Cluster.delete
    test_take_down::test_a_cluster_that_refuses_is_told_and_continued
infra.commands.take_down.project_name
    test_take_down::test_a_root_without_an_address_is_told
infra.commands.take_down.remove
    test_take_down::test_what_argo_cd_cannot_take_away_is_told_and_continued
classifier.cleaning.check_classes
    test_folders::test_all_in_one_folder_is_moved_up
classifier.cleaning._check_layout
    test_folders::test_folders_with_the_same_sub_folders_are_refused_and_the_cure_works
classifier.cleaning.check_classes
    test_cleaning::test_empty_class
classifier.cleaning.common_shape
    test_cleaning::test_mixed_sizes_are_refused_with_two_files_and_the_cure
classifier.cleaning.check_readable
    test_cleaning::test_too_many_unreadable_images_are_refused
classifier.cleaning.check_range
    test_pictures::test_pictures_of_fewer_bits_are_refused_and_the_cure_works
classifier.data._check_prepared
    test_cleaning::test_splits_are_there_once_the_pipeline_has_run
classifier.distributed.check_devices
    test_distributed::test_more_workers_than_cores_are_refused
    test_distributed::test_a_cluster_may_have_what_this_machine_has_not
classifier.distributed.storage_for
    test_distributed::test_a_storage_that_is_none_is_refused
classifier.export.refuse_unless_passed
    test_export::test_a_graph_that_answers_differently_is_refused
classifier.networks.build
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
classifier.networks.pretrainable
    test_pretrained::test_weights_that_cannot_be_used_are_named_and_the_cure_works
classifier.pretrained.load
    test_pretrained::test_weights_that_cannot_be_used_are_named_and_the_cure_works
classifier.pretrained.load
    test_pretrained::test_weights_that_cannot_be_used_are_named_and_the_cure_works
classifier.pretrained.load
    test_pretrained::test_weights_that_cannot_be_used_are_named_and_the_cure_works
classifier.pretrained.load
    test_pretrained::test_weights_that_cannot_be_used_are_named_and_the_cure_works
classifier.pretrained.download
    test_pretrained::test_without_network_the_file_can_be_placed_by_hand
classifier.pretrained.read
    test_pretrained::test_a_file_of_something_else_is_refused_and_nothing_of_it_is_run
classifier.pretrained.read
    test_pretrained::test_a_file_of_something_else_is_refused_and_nothing_of_it_is_run
classifier.ray_cluster.connect
    test_tuning::test_the_head_of_a_cluster_is_connected_to
classifier.sources.Source.__post_init__
    test_cleaning::test_label_out_of_range
classifier.sources.cifar10
    test_cleaning::test_without_network_the_archive_can_be_placed_by_hand
classifier.precision.refuse_unless_passed
    test_precision::test_what_loses_too_much_is_refused_and_fp32_is_not
classifier.sources.image_folder
    test_cleaning::test_missing_folder
classifier.sources.image_folder
    test_ingest::test_a_killed_run_is_finished_by_the_next
classifier.sources.image_folder
    test_cleaning::test_images_without_class_folders
classifier.sources.image_folder
    test_splits::test_an_official_test_set_that_is_not_there_is_refused
classifier.sources._class_name
    test_folders::test_a_name_that_cannot_be_used_is_refused_and_renaming_helps
classifier.sources._class_name
    test_folders::test_a_name_that_cannot_be_used_is_refused_and_renaming_helps
classifier.sources._class_name
    test_folders::test_a_name_that_cannot_be_used_is_refused_and_renaming_helps
classifier.sources._class_name
    test_folders::test_a_name_that_cannot_be_used_is_refused_and_renaming_helps
classifier.sources._check_together
    test_folders::test_names_that_are_one_to_some_file_system_are_refused
classifier.sources._check_together
    test_folders::test_splits_are_no_classes_and_the_cure_works
classifier.splits.parse
    test_splits::test_a_line_that_is_none_is_named_and_the_cure_works
classifier.splits._check_all_there
    test_cleaning::test_class_with_fewer_images_than_splits
    test_cleaning::test_near_duplicates_are_distinct_at_a_lower_limit
classifier.splits._check_all_there
    test_splits::test_a_class_that_lost_its_test_pictures_is_refused_and_each_cure_works
classifier.model.read_checkpoint
    test_checkpoints::test_the_cure_makes_another_model
classifier.model.refuse_checkpoint
    test_checkpoints::test_the_cure_makes_another_model
classifier.training.check
    test_distributed::test_what_several_workers_cannot_train_is_refused
classifier.training.check
    test_training::test_what_lbfgs_cannot_do_is_refused_and_as_told_it_trains
classifier.training.check
    test_distributed::test_what_several_workers_cannot_train_is_refused
classifier.training.check_compiler
    test_distributed::test_compiling_without_a_compiler_is_refused
classifier.networks.check_targets
    test_pretrained::test_targets_that_a_loss_is_not_made_for_are_refused
classifier.networks.check_optimizer
    test_training::test_what_lbfgs_cannot_do_is_refused_and_as_told_it_trains
classifier.training.fit
    test_distributed::test_a_lower_learning_rate_cures_a_loss_without_end
curation.batch_comparison.batch_source
    test_ingest::test_a_batch_that_is_not_there
curation.batch_comparison.check_any_readable
    test_ingest::test_a_batch_of_which_nothing_can_be_read_is_copied_again
curation.batch_comparison.check_class_names
    test_folders::test_a_new_class_that_is_an_old_one_to_some_file_system_is_refused
curation.batch_comparison.check_class_names
    test_ingest::test_a_class_named_as_a_decision_is_refused
curation.batch_comparison.check_new_classes
    test_ingest::test_renamed_classes_are_refused_with_what_they_may_be
    test_ingest::test_the_hint_for_new_classes_can_be_typed
curation.batch_comparison.agreed_shape
    test_ingest::test_another_size_than_the_data_set_is_refused
curation.batch_comparison.agreed_shape
    test_ingest::test_colour_for_a_grey_data_set_is_refused
curation.ingest.review_on_page
    test_ingest::test_without_questions_there_is_no_page
curation.ingest.data_folder
    test_ingest::test_another_source_than_a_folder
curation.ingest.data_folder
    test_ingest::test_a_folder_outside_the_project
curation.ingest.batch_name
    test_ingest::test_a_batch_in_the_data_set_or_around_it
curation.ingest.batch_name
    test_folders::test_a_name_that_cannot_be_used_is_refused_and_renaming_helps
curation.ingest.check_version
    test_ingest::test_a_data_set_that_is_not_the_version_in_git
curation.ingest.check_version
    test_ingest::test_a_data_set_that_is_not_the_version_in_git
curation.ingest.check_current
    test_ingest::test_answers_without_their_report_are_refused
curation.ingest.check_current
    test_ingest::test_decisions_on_a_batch_that_has_changed_are_refused
    test_ingest::test_a_second_batch_of_the_same_name_is_refused
curation.ingest.finish
    test_ingest::test_a_disk_that_takes_no_report
curation.ingest.finish
    test_ingest::test_dvc_that_failed_is_asked_again
curation.ingest.read_plan
    test_ingest::test_a_plan_that_no_run_wrote_is_refused_and_the_cure_works
curation.ingest.move
    test_ingest::test_a_file_in_the_way_is_not_overwritten
curation.review.read
    test_corrected::test_a_review_file_that_is_corrected_is_read
curation.review.record
    test_ingest::test_a_decision_on_the_page_is_in_the_review_file
curation.review._rows
    test_corrected::test_a_review_file_that_is_corrected_is_read
curation.review._decision
    test_corrected::test_a_review_file_that_is_corrected_is_read
curation.review._check_one_label
    test_ingest::test_contradictions_within_the_batch_need_one_answer
tuning.search.make_search
    test_tuning::test_a_network_with_a_range_is_searched
tuning.search_space.parse
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
tuning.search_space.check
    test_corrected::test_what_is_corrected_as_the_sentence_says_is_taken
tuning.trials.Record._line
    test_corrected::test_a_trial_whose_line_is_removed_runs_again
"""


def followed() -> list[tuple[str, list[str]]]:
    """Functions that make sentences, and the tests that do what these say."""
    entries = re.findall(r"^(\S+)\n((?: .*\n)*)", FOLLOWED, re.MULTILINE)
    return [(site, tests.split()) for site, tests in entries]


def texts(node: ast.AST, named: dict[str, list[ast.expr]], depth: int = 3) -> list[str]:
    """What an expression can say: `…` stands for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.IfExp):
        return texts(node.body, named, depth) + texts(node.orelse, named, depth)
    if isinstance(node, ast.FormattedValue):
        return texts(node.value, named, depth) or ["…"]
    if isinstance(node, ast.JoinedStr | ast.BinOp):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node.left, node.right]
        return ["".join(each) for each in product(*(texts(p, named, depth) or "…" for p in parts))]
    name = node.func if isinstance(node, ast.Call) else node
    if isinstance(name, ast.Name) and depth:
        return [text for each in named.get(name.id, []) for text in texts(each, named, depth - 1)]
    return []


def returned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What the functions of a module return."""
    found: dict[str, list[ast.expr]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            ends = (end.value for end in ast.walk(node) if isinstance(end, ast.Return))
            found[node.name] = [end for end in ends if end]
    return found


def assigned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What names of a module stand for."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else []:
            found.setdefault(ast.unparse(target), []).append(node.value)
    return found


def cures(text: str) -> list[str]:
    """What a sentence says to do."""
    clauses = re.split(r"(?<=[:;]) |\n", text)[1:]
    told = [each for each in clauses if re.match(r"`|[A-Za-z]+", each)]
    return [each for each in told if re.split(r"\W", each)[0] not in REASONS] or (
        [text] if "run `" in text else []
    )


def told(
    tree: ast.Module, inside: str, imported: dict[str, list[ast.expr]]
) -> Iterator[tuple[str, list[str]]]:
    """Functions of a module with what each of their errors says to do."""
    named = imported | returned(tree) | assigned(tree)

    def walk(node: ast.AST, inside: str) -> Iterator[tuple[str, list[str]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and ERROR.fullmatch(ast.unparse(child.func)):
                said = [text for each in child.args for text in texts(each, named)]
                if found := [cure for text in said for cure in cures(text)]:
                    yield inside, list(dict.fromkeys(found))
            deeper = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from walk(child, f"{inside}.{child.name}" if deeper else inside)

    return walk(tree, inside)


def sentences() -> list[tuple[str, list[str]]]:
    """All functions whose errors say what to do, and what each says."""
    trees = {}
    for room, folder in ROOMS.items():
        for path in sorted(folder.resolve().rglob("*.py")):
            module = path.relative_to(folder.resolve()).with_suffix("")
            trees[".".join((*room.split("/"), *module.parts))] = ast.parse(path.read_text())
    imported = returned(ast.Module([each for tree in trees.values() for each in tree.body]))
    return [each for name, tree in trees.items() for each in told(tree, name, imported)]


def names_of_tests() -> dict[str, list[str]]:
    """Test modules by name, and their tests."""
    found = {}
    for folder in (TEMPLATE / "tests", UNBAKED / "tests"):
        for path in folder.rglob("test_*.py"):
            body = ast.parse(path.read_text()).body
            assert path.stem not in found, f"two modules are named {path.stem}"
            found[path.stem] = [each.name for each in body if isinstance(each, ast.FunctionDef)]
    return found


def test_what_sentences_say_to_do_is_found() -> None:
    text = '''
HOW = "install it with `get it`"

class A:
    def f(self):
        """Raise: do nothing."""
        if x:
            raise UserError(f"{x} is missing: add {y} to it")
        raise self.wrong("it is odd: the reason")

    def wrong(self, why):
        return DeliveryError(f"no: {HOW if why else why}")

sys.exit("it is late; come again")
'''
    assert list(told(ast.parse(text), "a", {})) == [
        ("a.A.f", ["add … to it"]),
        ("a.A.wrong", ["install it with `get it`"]),
        ("a", ["come again"]),
    ]


def test_all_that_sentences_say_to_do_is_done_by_a_test() -> None:
    said = sentences()
    entries = Counter(site for site, _ in followed())
    count = Counter(site for site, _ in said)
    wrong = {site for site in count | entries if count[site] != entries[site]}
    named = "\n".join(f"{site}: {' / '.join(found)}" for site, found in said if site in wrong)
    assert not wrong, f"FOLLOWED needs an entry for each of these and no other: {wrong}\n{named}"


def test_the_tests_that_follow_are_there() -> None:
    there = names_of_tests()
    for site, named in followed():
        assert named, f"{site}: name the test that does what it says"
        for each in named:
            module, _, function = each.partition("::")
            assert function in there.get(module, []), f"{site}: there is no {each}"
